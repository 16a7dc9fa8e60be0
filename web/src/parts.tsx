/** Shared components. */

import { createContext, type CSSProperties, type ReactNode, useContext, useEffect, useRef, useState } from "react";
import * as api from "./api";
import type { Attribute, Character, Job, Picture } from "./api";
import { languages, type Words } from "./words";

export const Language = createContext<Words>(languages.en);
export const useWords = () => useContext(Language);

/** Actions on an image, and the character that it shows. */
export interface Acts {
  character: Character;
  chosen: string[];
  open(job: Job, picture: Picture): void;
  again(job: Job, seed?: number): void;
  beside(job: Job, picture: Picture): void;
  choose(job: Job, picture: Picture): void;
  download(job: Job, picture: Picture): void;
}

export const Acting = createContext<Acts | null>(null);
export const useActs = () => useContext(Acting)!;

const PATHS = {
  again: "M4 12a8 8 0 1 0 2.5-5.8M4 4v4.5h4.5",
  download: "M12 4v11m0 0 4.5-4.5M12 15l-4.5-4.5M5 20h14",
  beside: "M12 3v18M4 6h4M4 18h4M4 6v12M16 6h4v12h-4",
  compare: "M4 5h6v14H4zM14 5h6v14h-6z",
  close: "m6 6 12 12M18 6 6 18",
  dice: "M5 5h14v14H5zM9 9h.01M15 9h.01M12 12h.01M9 15h.01M15 15h.01",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8M12 2v2m0 16v2M2 12h2m16 0h2M5 5l1.4 1.4m11.2 11.2L19 19M5 19l1.4-1.4M17.6 6.4 19 5",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5",
};

export function Icon({ name }: { name: keyof typeof PATHS }) {
  return (
    <svg aria-hidden viewBox="0 0 24 24" className="size-4.5 shrink-0 fill-none stroke-current stroke-[1.7]">
      <path d={PATHS[name]} strokeLinecap="round" strokeLinejoin="round" />
    </svg>
  );
}

interface Pressed {
  icon: keyof typeof PATHS;
  label: string;
  /** the icon alone */
  small?: boolean;
  framed?: boolean;
  pressed?: boolean;
  disabled?: boolean;
  onClick(): void;
}

export function IconButton({ icon, label, small, framed, pressed, disabled, onClick }: Pressed) {
  const hidden = small ? { "aria-label": label, title: label } : {};
  const look = small && !framed ? "button-bare text-quiet hover:text-ink" : "";
  return (
    <button type="button" className={`button ${small ? "min-w-9" : ""} ${look}`} aria-pressed={pressed} disabled={disabled} onClick={onClick} {...hidden}>
      <Icon name={icon} />
      {!small && label}
    </button>
  );
}

/** Load files shortly before they become visible. */
const NEAR = { rootMargin: "50%" };

/** An image that loads when it becomes visible; uses fetch, because an `<img>` cannot send an API key. */
export function Shown({ url, alt, ...look }: { url: string; alt: string; className: string; style?: CSSProperties }) {
  const place = useRef<HTMLImageElement>(null);
  const [source, setSource] = useState<string>();
  useEffect(() => {
    const left = new AbortController();
    let made = "";
    const seen = new IntersectionObserver(async ([entry]) => {
      if (!entry?.isIntersecting) return;
      seen.disconnect();
      const file = await api.file(url, left.signal).catch(() => null);
      if (!file || left.signal.aborted) return;
      setSource((made = URL.createObjectURL(file)));
    }, NEAR);
    seen.observe(place.current!);
    return () => {
      left.abort();
      seen.disconnect();
      URL.revokeObjectURL(made);
    };
  }, [url]);
  const className = `overflow-hidden bg-sunk text-transparent ${look.className}`; // hides the alt text while loading
  return <img {...look} ref={place} src={source} alt={alt} className={className} />;
}

/** Identity score of an image, on a scale up to the ceiling of the character's own portraits. */
export function Identity({ value }: { value: number | null | undefined }) {
  const w = useWords();
  const scale = useActs().character.identity;
  if (value === undefined || !scale) return null;
  if (value === null) return <p className="text-xs text-quiet">{w.noFace}</p>;
  const share = (part: number) => `${100 * Math.min(1, Math.max(0, part / scale.ceiling))}%`;
  const matches = value >= scale.gate;
  return (
    <div className="space-y-1 text-xs text-quiet">
      <p>
        {w.identity} <b className="font-semibold text-ink tabular-nums">{value.toFixed(2)}</b>
        {": "}
        {matches ? w.match : w.noMatch}
      </p>
      <div aria-hidden className="relative h-1.5 rounded-full bg-line">
        <div className={`h-full rounded-full ${matches ? "bg-accent" : "bg-wrong"}`} style={{ width: share(value) }} />
        <div className="absolute -inset-y-0.5 w-0.5 bg-ink" style={{ left: share(scale.gate) }} />
      </div>
    </div>
  );
}

/** Attributes of the prompt that judges read from an image: shown ones by word, missed ones with what is seen. */
export function Attributes({ read }: { read: Attribute[] }) {
  const w = useWords();
  if (!read.length) return null;
  return (
    <ul aria-label={w.attributes} className="flex flex-wrap gap-x-3 gap-y-1 text-xs text-quiet">
      {read.map(({ name, requested, seen }) => (
        <li key={name} lang="en" title={name}>
          {requested === seen ? `✓ ${requested}` : <span className="text-wrong">{`✗ ${requested} (${w.seen} ${seen})`}</span>}
        </li>
      ))}
    </ul>
  );
}

/** A modal dialog; Escape closes it, and it keeps the keyboard focus. */
export function Dialog({ title, onClose, children }: { title: string; onClose(): void; children: ReactNode }) {
  const w = useWords();
  const place = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const opener = document.activeElement as HTMLElement | null;
    place.current?.showModal();
    return () => opener?.focus(); // also where another dialog replaces this one
  }, []);
  const close = () => place.current?.close();
  return (
    <dialog
      ref={place}
      onClose={onClose}
      onClick={(event) => event.target === place.current && close()}
      aria-labelledby="dialog-title"
      className="m-auto max-h-[calc(100dvh-1rem)] w-[calc(100vw-1rem)] max-w-5xl overflow-y-auto rounded-2xl border border-line bg-paper text-ink"
    >
      <div className="space-y-5 p-4 sm:p-7">
        <div className="flex items-start justify-between gap-4">
          <h2 id="dialog-title" className="font-serif text-2xl">
            {title}
          </h2>
          <IconButton small icon="close" label={w.close} onClick={close} />
        </div>
        {children}
      </div>
    </dialog>
  );
}
