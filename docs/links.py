"""Hook of mkdocs: links to files outside docs/ become paths, since the site does not contain the files."""

import re
from typing import Any

LINK = re.compile(r"\[([^\]]+)\]\((?:\.\./)+([^)#]+)\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return a page's text without links that leave the site."""
    depth = page.file.src_uri.count("/")

    def replace(link: re.Match[str]) -> str:
        leaves = link.group(0).count("../") > depth
        text, path = link.groups()
        return f"{text} (`{path}`)" if leaves and path not in text else text if leaves else link.group(0)

    return LINK.sub(replace, markdown)
