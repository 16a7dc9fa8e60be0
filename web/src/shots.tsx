/** Images of jobs: cards, large views and generation settings. */

import type { Job, Picture } from "./api";
import type { Preview } from "./jobs";
import { ended } from "./jobs";
import { Attributes, IconButton, Identity, Shown, useActs, useWords } from "./parts";
import type { Words } from "./words";

export const keyOf = (job: Job, picture: Picture) => `${job.id}/${picture.seed}`;

/** Return the settings of an image as labels and values. */
export function parameters(job: Job, picture: Picture, w: Words): [string, string][] {
  const { request, created_at } = job;
  const rows: [string, string | number | null][] = [
    [w.prompt, request.prompt],
    [w.negative_prompt, request.negative_prompt],
    [w.seed, picture.seed],
    [w.preset, request.preset],
    [w.steps, request.steps],
    [w.guidance_scale, request.guidance_scale],
    [w.size, `${request.width} × ${request.height}`],
    [w.scheduler, request.scheduler],
    [w.loras, request.loras.map(({ name, weight }) => `${name} ${weight?.toFixed(2)}`).join(", ")],
    [w.pictures, pictureWords(job, w)],
    [w.created_at, new Date(1000 * created_at).toLocaleString(w.locale, { dateStyle: "medium", timeStyle: "short" })],
  ];
  return rows.filter(([, value]) => value !== null && value !== "").map(([name, value]) => [name, String(value)]);
}

/** A prompt without the prefix that all prompts of the character share. */
function Prompt({ job, className }: { job: Job; className: string }) {
  const { character } = useActs();
  const start = `photo of a ${character.trigger} ${character.class_word}, `;
  const { prompt } = job.request;
  return (
    <p lang="en" className={className}>
      {prompt.startsWith(start) ? prompt.slice(start.length) : prompt}
    </p>
  );
}

function pictureWords({ request }: Job, w: Words): string {
  const controls = request.controls?.map(({ kind, scale }) => `${w.control(kind)} ${scale.toFixed(2)}`) ?? [];
  const strength = request.strength == null ? [] : [`${w.image} ${request.strength.toFixed(2)}`];
  return [...strength, ...controls].join(", ");
}

/** An image with the label "synthetic", or the reason of its refusal. */
export function Face({ job, picture, square }: { job: Job; picture: Picture; square?: boolean }) {
  const w = useWords();
  const { prompt, width, height } = job.request;
  const style = { aspectRatio: square ? "1" : `${width} / ${height}` };
  if (!picture.url)
    return (
      <div className="flex flex-col justify-center gap-1 bg-sunk p-4 text-sm" style={style}>
        <b>{w.blocked}</b>
        <span lang="en" className="text-quiet">
          {picture.blocked_reason}
        </span>
      </div>
    );
  return (
    <div className="relative">
      <Shown
        url={picture.url}
        alt={`${prompt}, ${w.seed.toLowerCase()} ${picture.seed}`}
        className="w-full object-cover"
        style={style}
      />
      <span className="pointer-events-none absolute bottom-2 left-2 rounded-full bg-black/75 px-2 py-0.5 text-xs text-white">
        {w.synthetic}
      </span>
    </div>
  );
}

/** Actions on an image; `small` shows icons only. */
export function Actions({ job, picture, small }: { job: Job; picture: Picture; small?: boolean }) {
  const w = useWords();
  const acts = useActs();
  const each = { small, disabled: !picture.url };
  return (
    <div className={`flex flex-wrap ${small ? "-mx-1.5" : "gap-2"}`}>
      <IconButton small={small} icon="again" label={w.again} onClick={() => acts.again(job, picture.seed)} />
      <IconButton {...each} icon="download" label={w.download} onClick={() => acts.download(job, picture)} />
      <IconButton {...each} icon="beside" label={w.beside} onClick={() => acts.beside(job, picture)} />
      <IconButton
        {...each}
        icon="compare"
        label={w.compare}
        pressed={acts.chosen.includes(keyOf(job, picture))}
        onClick={() => acts.choose(job, picture)}
      />
    </div>
  );
}

/** One image of a job; `large` adds its settings. */
export function Shot({ job, picture, large }: { job: Job; picture: Picture; large?: boolean }) {
  const w = useWords();
  const { open } = useActs();
  const look = large ? "grid grid-cols-1 gap-4 xl:grid-cols-[minmax(0,36rem)_minmax(16rem,1fr)] xl:gap-8" : "min-w-0 space-y-2";
  return (
    <figure className={look}>
      <div className="max-w-xl space-y-2">
        <button
          type="button"
          title={w.details}
          className="block w-full overflow-hidden rounded-xl border border-line text-left"
          onClick={() => open(job, picture)}
        >
          <Face square={!large} job={job} picture={picture} />
        </button>
        <Identity value={picture.identity} />
        <Attributes read={picture.attributes} />
        {job.warnings.map((warning) => (
          <p key={warning} lang="en" className="text-xs text-quiet">
            {warning}
          </p>
        ))}
      </div>
      <figcaption className={large ? "max-w-xl space-y-5" : "space-y-2"}>
        <Prompt job={job} className={large ? "font-serif text-xl leading-snug" : "line-clamp-2 text-sm text-quiet"} />
        <Actions job={job} picture={picture} small={!large} />
        {large && <Parameters rows={parameters(job, picture, w).slice(1)} />}
      </figcaption>
    </figure>
  );
}

/** A finished job without an image. */
export function Imageless({ job }: { job: Job }) {
  const w = useWords();
  const { again } = useActs();
  return (
    <div className="flex flex-col gap-2 rounded-xl border border-line p-4 text-sm">
      <b>{w[job.state]}</b>
      {job.error && (
        <span lang="en" className="wrap-anywhere text-wrong">
          {job.error}
        </span>
      )}
      <Prompt job={job} className="line-clamp-3 text-quiet" />
      <div className="-mx-1.5 mt-auto">
        <IconButton small icon="again" label={w.again} onClick={() => again(job)} />
      </div>
    </div>
  );
}

export function Shots({ job, large }: { job: Job; large?: boolean }) {
  if (!job.images.length) return ended(job) ? <Imageless job={job} /> : null;
  return job.images.map((picture) => <Shot key={picture.seed} job={job} picture={picture} large={large} />);
}

/** A waiting job. */
export function Waiting({ job, onCancel }: { job: Job; onCancel(): void }) {
  return (
    <div className="max-w-xl border-t border-line pt-4">
      <Progress job={job} onCancel={onCancel} />
      <Prompt job={job} className="truncate text-sm text-quiet" />
    </div>
  );
}

/** Progress of an unfinished job: position or step, and remaining time. */
export function Progress({ job, escape, onCancel }: { job: Job; escape?: boolean; onCancel(): void }) {
  const w = useWords();
  const where =
    job.state === "queued"
      ? w.before(job.position ?? 0)
      : [w.stepOf(job.step, job.steps), job.eta_seconds === null ? "" : w.left(span(job.eta_seconds, w))];
  return (
    <div className="space-y-2">
      <div className="flex items-center justify-between gap-4">
        <p className="text-sm tabular-nums">
          <b className="font-semibold">{w[job.state]}</b>
          <span className="text-quiet">, {[where].flat().filter(Boolean).join(", ")}</span>
        </p>
        <button type="button" className="button" onClick={onCancel}>
          {w.cancel}
          {escape && <kbd className="hidden font-sans text-xs text-quiet sm:inline">Esc</kbd>}
        </button>
      </div>
      {job.state === "running" && (
        <progress
          aria-label={w.running}
          className="block h-1.5 w-full overflow-hidden rounded-full bg-line [&::-moz-progress-bar]:bg-accent [&::-webkit-progress-bar]:bg-line [&::-webkit-progress-value]:bg-accent"
          max={job.steps}
          value={job.step}
        />
      )}
    </div>
  );
}

function span(seconds: number, w: Words): string {
  const whole = Math.ceil(seconds);
  const [value, unit] = whole < 90 ? [whole, "second"] : [Math.ceil(whole / 60), "minute"];
  return new Intl.NumberFormat(w.locale, { style: "unit", unit }).format(value as number);
}

/** The running or next job with its preview. */
export function Drawing({ job, preview, onCancel }: { job: Job; preview: Preview | null; onCancel(): void }) {
  const { width, height } = job.request;
  const source = preview?.job === job.id ? preview.src : "";
  return (
    <div className="max-w-xl space-y-4">
      <div
        data-preview={Boolean(source)}
        className="overflow-hidden rounded-xl border border-line bg-sunk"
        style={{ aspectRatio: `${width} / ${height}` }}
      >
        {source && <img src={source} alt="" className="size-full object-cover" />}
      </div>
      <Progress escape job={job} onCancel={onCancel} />
      <Prompt job={job} className="font-serif text-xl leading-snug" />
      {job.images.length > 0 && (
        <div className="grid grid-cols-3 gap-4">
          <Shots job={job} />
        </div>
      )}
    </div>
  );
}

/** Labels and values; those that differ from `unlike`, of another image, are highlighted. */
export function Parameters({ rows, unlike }: { rows: [string, string][]; unlike?: [string, string][] }) {
  const others = new Map(unlike);
  return (
    <dl className={`grid gap-x-4 gap-y-1.5 text-sm ${unlike ? "sm:grid-cols-[auto_1fr]" : "grid-cols-[auto_1fr]"}`}>
      {rows.map(([name, value]) => {
        const differs = unlike && others.get(name) !== value;
        return (
          <div key={name} className="col-span-full grid grid-cols-subgrid">
            <dt className="text-quiet">{name}</dt>
            <dd className={`min-w-0 ${differs ? "font-semibold text-accent" : ""}`}>{value}</dd>
          </div>
        );
      })}
    </dl>
  );
}
