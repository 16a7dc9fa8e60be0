/** Input images: initial image, mask and control images. */

import type { ReactNode } from "react";
import { bounds, type Capabilities, type Control, type Wanted } from "./api";
import { type Filled, Wrong } from "./fields";
import { IconButton, useWords } from "./parts";
import type { Words } from "./words";

const KINDS = ["image/png", "image/jpeg", "image/webp"];

/** Limit of a file in bytes: as base64 it fits into the 24 MiB of a request. */
const MAX_BYTES = 16 * 2 ** 20;

export const offersPictures = (can: Capabilities) => Boolean(bounds(can, "image") || can.controls?.length);

/** Return an image file as a data URL, or null if the server does not accept it. */
export function read(file: File): Promise<string | null> {
  if (!KINDS.includes(file.type) || file.size > MAX_BYTES) return Promise.resolve(null);
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result as string);
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(file);
  });
}

/** Return the possible uses of an image: a label, and the change to the request. */
export function uses({ can, wanted }: Pick<Filled, "can" | "wanted">, picture: string, w: Words) {
  const found: { label: string; change: Partial<Wanted> }[] = [];
  for (const kind of can.controls ?? []) {
    const controls = [...wanted.controls, { kind, image: picture, scale: 1, preprocess: true }];
    found.push({ label: w.control(kind), change: { controls } });
  }
  if (bounds(can, "image")) found.push({ label: w.image, change: { image: picture } });
  if (bounds(can, "mask") && wanted.image) found.push({ label: w.mask, change: { mask: picture } });
  return found;
}

export function Pictures({ can, wanted, setWanted, refused, onFile }: Filled & { onFile(file: File): void }) {
  const w = useWords();
  const set = (change: Partial<Wanted>) => setWanted((before) => ({ ...before, ...change }));
  const control = (at: number, change: Partial<Control>) =>
    set({ controls: wanted.controls.map((each, index) => (index === at ? { ...each, ...change } : each)) });
  return (
    <>
      {wanted.image && (
        <Given label={w.image} source={wanted.image} onRemove={() => set({ image: null, mask: null, strength: null })}>
          {bounds(can, "strength") && (
            <Slider label={w.strength} max={1} value={wanted.strength ?? 0.6} onChange={(strength) => set({ strength })} />
          )}
        </Given>
      )}
      {wanted.mask && <Given label={w.mask} source={wanted.mask} onRemove={() => set({ mask: null })} />}
      {wanted.controls.map((each, at) => (
        <Given
          key={at}
          label={w.control(each.kind)}
          source={each.image}
          onRemove={() => set({ controls: wanted.controls.filter((_, index) => index !== at) })}
        >
          <Slider label={w.scale} max={2} value={each.scale} onChange={(scale) => control(at, { scale })} />
          <label className="flex items-center gap-2 text-sm">
            <input
              type="checkbox"
              className="size-4"
              checked={each.preprocess}
              onChange={(event) => control(at, { preprocess: event.target.checked })}
            />
            {w.preprocess}
          </label>
        </Given>
      ))}
      {["image", "strength", "mask", "controls"].map((name) => (
        <Wrong key={name} name={name} refused={refused} />
      ))}
      <label className="block cursor-pointer rounded-lg border border-dashed border-edge px-3 py-4 text-center text-sm has-focus-visible:outline-2 has-focus-visible:outline-offset-2 has-focus-visible:outline-accent">
        <span className="font-medium">{w.choosePicture}</span>
        <span className="block text-quiet">{w.dropHint}</span>
        <input
          type="file"
          accept={KINDS.join()}
          className="sr-only"
          onChange={(event) => {
            const file = event.target.files?.[0];
            event.target.value = "";
            if (file) onFile(file);
          }}
        />
      </label>
    </>
  );
}

interface GivenProps {
  label: string;
  source: string;
  onRemove(): void;
  children?: ReactNode;
}

function Given({ label, source, onRemove, children }: GivenProps) {
  const w = useWords();
  return (
    <div className="flex gap-3">
      <img src={source} alt="" className="size-20 shrink-0 rounded-lg bg-sunk object-cover" />
      <div className="min-w-0 flex-1 space-y-2">
        <div className="flex items-start justify-between gap-2 text-sm font-medium">
          <span>{label}</span>
          <IconButton small icon="close" label={`${w.remove}: ${label}`} onClick={onRemove} />
        </div>
        {children}
      </div>
    </div>
  );
}

interface SliderProps {
  label: string;
  max: number;
  value: number;
  onChange(value: number): void;
}

function Slider({ label, max, value, onChange }: SliderProps) {
  return (
    <label className="block text-sm text-quiet">
      <span className="flex justify-between gap-2">
        {label}
        <span className="text-ink tabular-nums">{value.toFixed(2)}</span>
      </span>
      <input
        type="range"
        className="block w-full"
        min={0}
        max={max}
        step={0.05}
        value={value}
        onChange={(event) => onChange(event.target.valueAsNumber)}
      />
    </label>
  );
}
