/** Main view: the form, the running jobs and the results. */

import { useRef, useState } from "react";
import * as api from "./api";
import { type Capabilities, type Character, type Job, type Lora, type Marks, Refused, type Scene, type Wanted } from "./api";
import { BLANK } from "./fields";
import { Form } from "./form";
import { type Tell, useDrop, useEnds, useKeys } from "./hooks";
import { ended, useJobs } from "./jobs";
import { Acting, type Acts, useWords } from "./parts";
import { read, uses } from "./pictures";
import { Drawing, keyOf, Shots, Waiting } from "./shots";
import { Beside, Compare, Details, Dropped, type Image } from "./windows";

export interface Offered {
  can: Capabilities;
  scenes: Scene[];
  loras: Lora[];
  character: Character;
}

type Opened =
  | { kind: "details"; image: Image }
  | { kind: "beside"; image: Image; bare: string }
  | { kind: "compare"; images: [Image, Image] }
  | { kind: "dropped"; source: string; marks: Marks | null };

interface StudioProps {
  what: Offered;
  complain(err: unknown): void;
  tell: Tell;
}

export function Studio({ what, complain, tell }: StudioProps) {
  const { can, character } = what;
  const w = useWords();
  const { jobs, going, preview, draw, cancel } = useJobs(complain);
  const [wanted, setWanted] = useState<Wanted>(BLANK);
  const [refused, setRefused] = useState<Refused | null>(null);
  const [opened, setOpened] = useState<Opened | null>(null);
  const [chosen, setChosen] = useState<Image[]>([]);
  const posted = useRef(new Map<string, Partial<Wanted>>()); // input images of jobs, which the server does not return
  const bares = useRef(new Map<string, string>()); // jobs of the base model, by the image that they are compared with
  const sending = useRef(Promise.resolve()); // requests go out one after the other
  const unanswered = useRef<Wanted | null>(null);
  const stage = useRef<HTMLElement>(null);
  useEnds(jobs, tell);

  async function post(request: Partial<Wanted>): Promise<Job> {
    const job = await draw(api.known(can, request));
    const { image, mask, strength, controls } = request;
    if (image || controls?.length) posted.current.set(job.id, { image, mask, strength, controls });
    return job;
  }

  function submit() {
    if (unanswered.current === wanted) return; // Enter can fire twice
    unanswered.current = wanted;
    sending.current = sending.current.then(() => send(wanted));
  }

  async function send(request: Wanted) {
    setRefused(null);
    try {
      await post(request);
      if (stage.current!.getBoundingClientRect().top > innerHeight / 2) stage.current!.scrollIntoView();
    } catch (err) {
      if (err instanceof Refused && err.status !== 401) setRefused(err);
      else complain(err);
    } finally {
      if (unanswered.current === request) unanswered.current = null;
    }
  }

  function fill(request: Partial<Wanted>) {
    const seed = Number.isSafeInteger(request.seed) ? request.seed! : null; // JSON rounds larger seeds
    setWanted({ ...BLANK, ...request, seed });
    setRefused(null);
    setOpened(null);
    requestAnimationFrame(() => document.getElementById("prompt")!.focus()); // after the dialog has returned the focus
  }

  /** Return the request that repeats a job, and whether its input images are lost. */
  function repeated(job: Job): [Partial<Wanted>, boolean] {
    const { image, mask, strength, controls, ...rest } = job.request;
    const pictures = posted.current.get(job.id);
    return [{ ...rest, ...pictures }, !pictures && Boolean(image || controls?.length || strength != null)];
  }

  const acts: Acts = {
    character,
    chosen: chosen.map(({ job, picture }) => keyOf(job, picture)),
    open: (job, picture) => setOpened({ kind: "details", image: { job, picture } }),
    again(job, seed) {
      const [request, gone] = repeated(job);
      fill(seed === undefined ? request : { ...request, seed, num_images: 1 });
      tell((w) => (gone ? w.pictureGone : w.taken));
    },
    async beside(job, picture) {
      const image = { job, picture };
      const before = jobs.find(({ id, state }) => id === bares.current.get(keyOf(job, picture)) && state !== "cancelled");
      const [request, gone] = repeated(job);
      if (gone) return tell((w) => w.pictureGone);
      const bare = { ...request, seed: picture.seed, num_images: 1, loras: [{ name: character.trigger, weight: 0 }] };
      try {
        const { id } = before ?? (await post(bare));
        bares.current.set(keyOf(job, picture), id);
        setOpened({ kind: "beside", image, bare: id });
      } catch (err) {
        setOpened(null);
        complain(err);
      }
    },
    choose(job, picture) {
      const rest = chosen.filter((each) => keyOf(each.job, each.picture) !== keyOf(job, picture));
      const [first] = rest;
      setChosen(rest.length < chosen.length ? rest : [...rest, { job, picture }]);
      if (rest.length < chosen.length) return;
      setOpened(first ? { kind: "compare", images: [first, { job, picture }] } : null);
      if (!first) tell((w) => w.chooseOther);
    },
    async download(job, picture) {
      const file = await api.file(picture.url!).catch(complain);
      if (!file) return;
      const link = document.createElement("a");
      link.href = URL.createObjectURL(file);
      link.download = `${character.trigger}-${job.id.slice(0, 8)}-${picture.seed}.png`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href));
    },
  };

  async function take(file: File) {
    const source = await read(file);
    if (!source) return tell((w) => w.badPicture);
    try {
      const marks = await api.verify(source);
      if (marks?.request || uses({ can, wanted }, source, w).length) setOpened({ kind: "dropped", source, marks });
      else tell((w) => w.noUse);
    } catch (err) {
      complain(err);
    }
  }

  const isBare = (job: Job) => job.request.loras.some(({ name, weight }) => name === character.trigger && weight === 0);
  const [current, ...waiting] = going.toReversed();
  const past = jobs.filter(ended);
  const bare = opened?.kind === "beside" && jobs.find(({ id }) => id === opened.bare);
  const latest = current ? undefined : past.find((job) => !isBare(job));
  useKeys(submit, current && (() => cancel(current.id)));
  const dragging = useDrop(take);
  const close = () => {
    setOpened(null);
    setChosen([]);
  };
  return (
    <Acting value={acts}>
      <div className="grid grid-cols-1 gap-10 lg:grid-cols-[23rem_minmax(0,1fr)] lg:gap-14">
        <div className="lg:sticky lg:top-0 lg:-mx-2 lg:max-h-dvh lg:self-start lg:overflow-y-auto lg:px-2 lg:py-1 lg:pb-8">
          <Form
            {...what}
            wanted={wanted}
            setWanted={setWanted}
            refused={refused}
            onDraw={submit}
            onFile={take}
          />
        </div>
        <div className="min-w-0 space-y-12">
          <section ref={stage} aria-labelledby="latest" className="scroll-mt-4 space-y-4">
            <h2 id="latest" className="heading">
              {w.latest}
            </h2>
            {current && <Drawing job={current} preview={preview} onCancel={() => cancel(current.id)} />}
            {waiting.map((job) => (
              <Waiting key={job.id} job={job} onCancel={() => cancel(job.id)} />
            ))}
            {latest && (
              <div className={latest.images.length > 1 ? GRID : undefined}>
                <Shots job={latest} large={latest.images.length === 1} />
              </div>
            )}
            {!current && !latest && (
              <div className="grid aspect-square max-w-xl place-content-center rounded-xl border border-dashed border-line p-8 text-center">
                <p className="font-serif text-xl">{w.nothing}</p>
                <p className="text-sm text-quiet">{w.nothingHint}</p>
              </div>
            )}
          </section>
          {past.some((job) => job !== latest) && (
            <section aria-labelledby="history" className="space-y-4">
              <h2 id="history" className="heading">
                {w.history}
              </h2>
              <div className={GRID}>
                {past
                  .filter((job) => job !== latest)
                  .map((job) => (
                    <Shots key={job.id} job={job} />
                  ))}
              </div>
            </section>
          )}
        </div>
      </div>
      {opened?.kind === "details" && <Details {...opened.image} onClose={() => setOpened(null)} />}
      {bare && (
        <Beside {...opened.image} bare={bare} onCancel={() => cancel(bare.id)} onClose={() => setOpened(null)} />
      )}
      {opened?.kind === "compare" && <Compare images={opened.images} onClose={close} />}
      {opened?.kind === "dropped" && (
        <Dropped
          {...opened}
          uses={uses({ can, wanted }, opened.source, w).map(({ label, change }) => ({
            label,
            onUse: () => fill({ ...wanted, ...change }),
          }))}
          onAgain={() => fill(opened.marks!.request!)}
          onClose={() => setOpened(null)}
        />
      )}
      {dragging && (
        <div className="pointer-events-none fixed inset-0 z-20 grid place-content-center border-4 border-accent bg-paper/90 font-serif text-3xl">
          {w.dropHere}
        </div>
      )}
    </Acting>
  );
}

const GRID = "grid grid-cols-2 gap-x-4 gap-y-8 sm:grid-cols-3 xl:grid-cols-4";
