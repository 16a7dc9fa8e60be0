"""HTTP API: own calls, OpenAI's and A1111's, and the page."""
