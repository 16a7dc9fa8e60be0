/** Dialogs: details of an image, comparisons and a dropped image. */

import { useState } from "react";
import type { Job, Marks, Picture } from "./api";
import { ended } from "./jobs";
import { Attributes, Dialog, Identity, Shown, useWords } from "./parts";
import { Actions, Face, parameters, Parameters, Progress } from "./shots";

export interface Image {
  job: Job;
  picture: Picture;
}

export function Details({ job, picture, onClose }: Image & { onClose(): void }) {
  const w = useWords();
  return (
    <Dialog title={w.details} onClose={onClose}>
      <div className="grid grid-cols-1 gap-6 md:grid-cols-2">
        <div className="space-y-3">
          <div className="overflow-hidden rounded-xl border border-line">
            <Face job={job} picture={picture} />
          </div>
          <Identity value={picture.identity} />
          <Attributes read={picture.attributes} />
        </div>
        <div className="space-y-6">
          <Actions job={job} picture={picture} />
          <Parameters rows={parameters(job, picture, w)} />
        </div>
      </div>
    </Dialog>
  );
}

interface BesideProps extends Image {
  bare: Job;
  onCancel(): void;
  onClose(): void;
}

/** An image over the base model's image of the same seed; a slider moves the border between them. */
export function Beside({ job, picture, bare, onCancel, onClose }: BesideProps) {
  const w = useWords();
  const [share, setShare] = useState(50);
  const [other] = bare.images;
  return (
    <Dialog title={w.besideTitle} onClose={onClose}>
      <p className="text-sm text-quiet">{w.besideHint}</p>
      <div className="mx-auto max-w-xl space-y-3">
        {!ended(bare) && <Progress job={bare} onCancel={onCancel} />}
        {ended(bare) && !other && <p>{[w[bare.state], bare.error].filter(Boolean).join(": ")}</p>}
        {ended(bare) && other && !other.url && <Face job={bare} picture={other} />}
        <div className="relative overflow-hidden rounded-xl border border-line has-focus-visible:outline-2 has-focus-visible:outline-offset-2 has-focus-visible:outline-accent">
          <Face job={job} picture={picture} />
          {other?.url && (
            <>
              <div className="absolute inset-0" style={{ clipPath: `inset(0 ${100 - share}% 0 0)` }}>
                <Shown url={other.url} alt={`${w.baseModel}: ${bare.request.prompt}`} className="size-full object-cover" />
              </div>
              <div aria-hidden className="absolute inset-y-0 w-0.5 bg-white shadow" style={{ left: `${share}%` }} />
              <input
                type="range"
                aria-label={w.share}
                aria-valuetext={`${share} %`}
                className="absolute inset-0 size-full cursor-ew-resize opacity-0"
                value={share}
                onChange={(event) => setShare(event.target.valueAsNumber)}
              />
            </>
          )}
        </div>
        {other?.url && (
          <div className="flex justify-between gap-4 text-sm">
            <div className="w-2/5 space-y-1">
              <b>{w.baseModel}</b>
              <Identity value={other.identity} />
            </div>
            <div className="w-2/5 space-y-1 text-right">
              <b>{w.withLora}</b>
              <Identity value={picture.identity} />
            </div>
          </div>
        )}
      </div>
    </Dialog>
  );
}

/** Two images side by side; differing settings are highlighted. */
export function Compare({ images, onClose }: { images: [Image, Image]; onClose(): void }) {
  const w = useWords();
  const rows = images.map(({ job, picture }) => parameters(job, picture, w));
  return (
    <Dialog title={w.compare} onClose={onClose}>
      <div className="grid grid-cols-2 gap-3 sm:gap-6">
        {images.map(({ job, picture }, at) => (
          <div key={at} className="min-w-0 space-y-3">
            <div className="overflow-hidden rounded-xl border border-line">
              <Face job={job} picture={picture} />
            </div>
            <Identity value={picture.identity} />
            <Attributes read={picture.attributes} />
            <Parameters rows={rows[at]!} unlike={rows[1 - at]} />
          </div>
        ))}
      </div>
    </Dialog>
  );
}

interface DroppedProps {
  source: string;
  marks: Marks | null;
  uses: { label: string; onUse(): void }[];
  onAgain(): void;
  onClose(): void;
}

/** A dropped or chosen image: its marks, its settings and its possible uses. */
export function Dropped({ source, marks, uses, onAgain, onClose }: DroppedProps) {
  const w = useWords();
  return (
    <Dialog title={w.droppedTitle} onClose={onClose}>
      <div className="grid grid-cols-1 gap-6 sm:grid-cols-[12rem_minmax(0,1fr)]">
        <img src={source} alt="" className="w-full max-w-48 rounded-xl border border-line" />
        <div className="space-y-4">
          {marks?.request && (
            <div className="space-y-2">
              <p className="text-sm text-quiet">{w.drawnHere}</p>
              <p lang="en" className="font-serif text-lg leading-snug">
                {marks.request.prompt}
              </p>
              <button type="button" className="button button-strong" onClick={onAgain}>
                {w.again}
              </button>
            </div>
          )}
          <div className="flex flex-wrap gap-2">
            {uses.map(({ label, onUse }) => (
              <button key={label} type="button" className="button" onClick={onUse}>
                {w.useAs(label)}
              </button>
            ))}
          </div>
          {marks && marks.marks.length > 0 && (
            <ul lang="en" className="space-y-1 text-xs text-quiet">
              {marks.marks.map((mark) => (
                <li key={mark}>{mark}</li>
              ))}
            </ul>
          )}
        </div>
      </div>
    </Dialog>
  );
}
