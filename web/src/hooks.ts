/** Hooks: finished jobs, keyboard, dropped files and stored settings. */

import { useEffect, useEffectEvent, useRef, useState } from "react";
import type { Job } from "./api";
import { ended } from "./jobs";
import type { Words } from "./words";

/** Shows a notice; an `unseen` one is for screen readers only, since the page shows its content anyway. */
export type Tell = (say: (w: Words) => string, unseen?: boolean) => void;

/** Show a notice for each job that ends. */
export function useEnds(jobs: Job[], tell: Tell) {
  const unended = useRef(new Set<string>());
  useEffect(() => {
    for (const job of jobs)
      if (ended(job) && unended.current.has(job.id))
        tell((w) => (job.state === "done" ? w.ready(job.images.length) : `${w[job.state]} ${job.error}`), job.state !== "failed");
    unended.current = new Set(jobs.filter((job) => !ended(job)).map((job) => job.id));
  }, [jobs, tell]);
}

/** Ctrl+Enter generates and Escape cancels, wherever the focus is; an open dialog handles Escape itself. */
export function useKeys(onDraw: () => void, onCancel?: () => void) {
  const pressed = useEffectEvent((event: KeyboardEvent) => {
    if (event.isComposing || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") onCancel?.();
    else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) onDraw();
    else return;
    event.preventDefault();
  });
  useEffect(() => {
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, []);
}

/** Accept a file dropped anywhere; return whether a file is being dragged. */
export function useDrop(onFile: (file: File) => void): boolean {
  const [dragging, setDragging] = useState(false);
  const moved = useEffectEvent((event: DragEvent) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault(); // otherwise the browser opens the file in place of the page
    setDragging(event.type === "dragover" || (event.type === "dragleave" && event.relatedTarget !== null));
    const file = event.type === "drop" && event.dataTransfer.files[0];
    if (file) onFile(file);
  });
  useEffect(() => {
    const kinds = ["dragover", "dragleave", "drop"] as const;
    for (const kind of kinds) addEventListener(kind, moved);
    return () => {
      for (const kind of kinds) removeEventListener(kind, moved);
    };
  }, []);
  return dragging;
}

/** State that is kept in the browser's local storage. */
export function useKept<T extends string>(name: string, first: T): [T, (value: T) => void] {
  const [value, setValue] = useState(() => (localStorage.getItem(name) as T | null) ?? first);
  const keep = (next: T) => {
    localStorage.setItem(name, next);
    setValue(next);
  };
  return [value, keep];
}
