/** Page frame: language, theme and the form for the API key. */

import { useCallback, useEffect, useState } from "react";
import * as api from "./api";
import { Refused } from "./api";
import { type Tell, useKept } from "./hooks";
import { IconButton, Language, useWords } from "./parts";
import { type Offered, Studio } from "./studio";
import { type Language as Name, languages, type Words } from "./words";

/** Seconds until a notice disappears. */
const NOTICED = 8;

/** Return the server's capabilities, scenes, LoRAs and character. */
async function offered(): Promise<Offered> {
  const calls = [api.capabilities(), api.scenes(), api.loras(), api.characters()] as const;
  const [can, scenes, loras, [character]] = await Promise.all(calls);
  return { can, scenes, loras, character: character! };
}

export function App() {
  const [language, setLanguage] = useKept<Name>("language", navigator.language.startsWith("pt") ? "pt" : "en");
  const [theme, setTheme] = useKept("theme", matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const [what, setWhat] = useState<Offered | null>(null);
  const [locked, setLocked] = useState(false);
  const [notice, setNotice] = useState<{ say(w: Words): string; unseen: boolean } | null>(null);
  const w = languages[language];
  const other = language === "en" ? "pt" : "en";

  useEffect(() => {
    document.documentElement.lang = w.locale;
    document.documentElement.dataset.theme = theme;
  }, [w, theme]);
  useEffect(() => {
    if (!notice || !what) return;
    const timer = setTimeout(() => setNotice(null), 1000 * NOTICED);
    return () => clearTimeout(timer);
  }, [notice, what]);

  const tell: Tell = useCallback((say, unseen = false) => setNotice({ say, unseen }), []);
  const complain = useCallback(
    (err: unknown) => {
      if (err instanceof Refused && err.status === 401) {
        setLocked(true);
        setWhat(null);
        if (api.hasKey()) tell((w) => w.keyUnknown);
      } else tell((w) => (err instanceof Refused ? err.message : w.silent));
    },
    [tell],
  );
  const enter = useCallback(async () => {
    try {
      setWhat(await offered());
      setLocked(false);
      setNotice(null);
    } catch (err) {
      complain(err);
    }
  }, [complain]);
  useEffect(() => void enter(), [enter]);
  useEffect(() => {
    if (what) document.title = titled(what.character.name);
  }, [what]);

  return (
    <Language value={w}>
      <div className="mx-auto max-w-[90rem] px-4 pb-20 sm:px-8">
        <header className="flex items-start justify-between gap-4 py-5 sm:py-8">
          <div>
            <h1 className="font-serif text-2xl sm:text-3xl">{what ? titled(what.character.name) : "Valentina Pipeline"}</h1>
            <p className="text-sm text-quiet">{w.allSynthetic}</p>
          </div>
          <div className="flex gap-2">
            <button
              type="button"
              className="button"
              lang={languages[other].locale}
              onClick={() => setLanguage(other)}
            >
              <span aria-hidden className="sm:hidden">
                {languages[other].short}
              </span>
              <span className="sr-only sm:not-sr-only">{languages[other].name}</span>
            </button>
            <IconButton
              small
              framed
              icon={theme === "dark" ? "sun" : "moon"}
              label={theme === "dark" ? w.light : w.dark}
              onClick={() => setTheme(theme === "dark" ? "light" : "dark")}
            />
          </div>
        </header>
        <main>
          {locked && <KeyForm onEnter={enter} />}
          {what && <Studio what={what} complain={complain} tell={tell} />}
          {!what && !locked && !notice && <p className="text-quiet">{w.loading}</p>}
        </main>
      </div>
      <p
        role="status"
        className={
          notice && !notice.unseen
            ? "fixed inset-x-4 bottom-4 z-10 mx-auto w-fit max-w-prose rounded-lg bg-ink px-4 py-2.5 text-sm text-paper shadow-lg"
            : "sr-only"
        }
      >
        {notice?.say(w)}
      </p>
    </Language>
  );
}

function titled(name: string): string {
  return name.replaceAll("_", " ").replace(/(^|\s)\S/g, (letter) => letter.toUpperCase());
}

function KeyForm({ onEnter }: { onEnter(): Promise<void> }) {
  const w = useWords();
  return (
    <form
      className="max-w-sm space-y-3"
      onSubmit={(event) => {
        event.preventDefault();
        api.setKey(String(new FormData(event.currentTarget).get("key")));
        void onEnter();
      }}
    >
      <label htmlFor="key" className="block font-medium">
        {w.key}
      </label>
      <p id="about-key" className="text-sm text-quiet">
        {w.keyNeeded}
      </p>
      <input
        id="key"
        name="key"
        type="password"
        required
        autoFocus
        autoComplete="off"
        aria-describedby="about-key"
        className="field"
      />
      <button type="submit" className="button button-strong">
        {w.enter}
      </button>
    </form>
  );
}
