/** Form components: fields with the server's error messages, and drawers. */

import { type Dispatch, type ReactNode, type SetStateAction, useEffect, useRef } from "react";
import type { Capabilities, Refused, Wanted } from "./api";

export interface Filled {
  can: Capabilities;
  wanted: Wanted;
  setWanted: Dispatch<SetStateAction<Wanted>>;
  refused: Refused | null;
}

export const BLANK: Wanted = {
  prompt: "",
  scene: "",
  negative_prompt: "",
  seed: null,
  num_images: 1,
  preset: "",
  steps: null,
  guidance_scale: null,
  width: null,
  height: null,
  scheduler: null,
  loras: [],
  image: null,
  strength: null,
  mask: null,
  controls: [],
};

/** Return the form field of an error, or "" where the form does not have it. */
export function fieldOf(refused: Refused | null): string {
  const field = refused?.field.split(".")[0] ?? "";
  return field in BLANK ? field : "";
}

/** A collapsible section; it also opens when its content needs attention. */
export function Drawer({ title, needed, children }: { title: string; needed: boolean; children: ReactNode }) {
  const place = useRef<HTMLDetailsElement>(null);
  useEffect(() => {
    if (needed) place.current!.open = true;
  }, [needed]);
  return (
    <details ref={place} className="group border-t border-line pt-3">
      <summary className="flex list-none items-center justify-between rounded text-sm font-medium">
        {title}
        <span aria-hidden className="text-quiet transition-transform group-open:rotate-90">
          ›
        </span>
      </summary>
      <div className="space-y-4 pt-4">{children}</div>
    </details>
  );
}

interface Its {
  id: string;
  "aria-invalid": boolean;
  "aria-describedby": string | undefined;
}

interface FieldProps {
  name: string;
  label: string;
  refused: Refused | null;
  children(its: Its): ReactNode;
}

/** A label, its control and the server's error message. */
export function Field({ name, label, refused, children }: FieldProps) {
  const wrong = fieldOf(refused) === name;
  return (
    <div className="space-y-1.5">
      <label htmlFor={name} className="block text-sm font-medium">
        {label}
      </label>
      {children({ id: name, "aria-invalid": wrong, "aria-describedby": wrong ? `wrong-${name}` : undefined })}
      <Wrong name={name} refused={refused} />
    </div>
  );
}

export function Wrong({ name, refused }: { name: string; refused: Refused | null }) {
  if (fieldOf(refused) !== name) return null;
  return (
    <p role="alert" lang="en" id={`wrong-${name}`} className="text-sm text-wrong">
      {refused?.message}
    </p>
  );
}

interface NumberBoxProps {
  its: Its;
  value: number | null;
  min?: number;
  max?: number;
  step?: number;
  hint?: string;
  onChange(value: number | null): void;
}

export function NumberBox({ its, value, min, max, step, hint, onChange }: NumberBoxProps) {
  return (
    <input
      {...its}
      type="number"
      inputMode="decimal"
      className="field min-w-0 tabular-nums"
      placeholder={hint}
      min={min}
      max={max}
      step={step ?? "any"}
      value={value ?? ""}
      onChange={(event) => onChange(event.target.value === "" ? null : event.target.valueAsNumber)}
    />
  );
}
