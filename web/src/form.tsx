/** Form of a request, built from the server's capabilities. */

import type { FormEvent } from "react";
import { bounds, type Lora, type Scene, type Use, type Wanted } from "./api";
import { Drawer, Field, fieldOf, type Filled, NumberBox, Wrong } from "./fields";
import { IconButton, useActs, useWords } from "./parts";
import { offersPictures, Pictures } from "./pictures";

/** The number of seeds that the server picks from. */
const SEEDS = 2 ** 32;

interface FormProps extends Filled {
  scenes: Scene[];
  loras: Lora[];
  onDraw(): void;
  onFile(file: File): void;
}

export function Form(props: FormProps) {
  const { can, wanted, setWanted, refused, scenes, onDraw } = props;
  const w = useWords();
  const set = (change: Partial<Wanted>) => setWanted((before) => ({ ...before, ...change }));
  const roll = crypto.getRandomValues(new Uint32Array(1));
  const submit = (event: FormEvent) => {
    event.preventDefault();
    onDraw();
  };
  const elsewhere = refused && !fieldOf(refused) ? refused : null;
  const scene = scenes.find((each) => each.name === wanted.scene);
  return (
    <form noValidate onSubmit={submit} aria-label={w.ask} className="space-y-6">
      <Field name="prompt" label={w.promptIn} refused={refused}>
        {(its) => (
          <textarea
            {...its}
            autoFocus
            rows={4}
            className="field resize-y font-serif text-lg leading-snug sm:text-lg"
            placeholder={w.promptHint}
            value={wanted.prompt}
            onChange={(event) => set({ prompt: event.target.value })}
          />
        )}
      </Field>
      {bounds(can, "scene") && scenes.length > 0 && (
        <Field name="scene" label={w.scene} refused={refused}>
          {(its) => (
            <>
              <select {...its} className="field" value={wanted.scene} onChange={(e) => set({ scene: e.target.value })}>
                <option value="">{w.noScene}</option>
                {[...Map.groupBy(scenes, (each) => each.category)].map(([category, members]) => (
                  <optgroup key={category} label={plain(category)}>
                    {members.map(({ name }) => (
                      <option key={name} value={name}>
                        {plain(name)}
                      </option>
                    ))}
                  </optgroup>
                ))}
              </select>
              {scene && (
                <p lang="en" className="text-sm text-quiet">
                  {scene.words}
                </p>
              )}
            </>
          )}
        </Field>
      )}
      <Presets {...props} />
      <div className="grid grid-cols-[1fr_6rem] gap-4">
        <Field name="seed" label={w.seed} refused={refused}>
          {(its) => (
            <div className="flex gap-2">
              <NumberBox its={its} value={wanted.seed} min={0} hint={w.random} onChange={(seed) => set({ seed })} />
              <IconButton
                small
                framed
                icon="dice"
                label={w.dice}
                onClick={() => set({ seed: crypto.getRandomValues(roll)[0]! % SEEDS })}
              />
            </div>
          )}
        </Field>
        <Field name="num_images" label={w.num_images} refused={refused}>
          {(its) => (
            <NumberBox
              its={its}
              value={wanted.num_images}
              {...bounds(can, "num_images")}
              onChange={(n) => set({ num_images: n ?? 1 })}
            />
          )}
        </Field>
      </div>
      <Drawer title={w.advanced} needed={ADVANCED.includes(fieldOf(refused))}>
        <Advanced {...props} />
      </Drawer>
      <Drawer title={w.loras} needed={fieldOf(refused) === "loras"}>
        <Loras {...props} />
      </Drawer>
      {offersPictures(can) && (
        <Drawer title={w.pictures} needed={Boolean(wanted.image || wanted.controls.length)}>
          <Pictures {...props} />
        </Drawer>
      )}
      {elsewhere && (
        <p role="alert" lang="en" className="text-sm text-wrong">
          {elsewhere.message}
        </p>
      )}
      <div className="bg-paper lg:sticky lg:bottom-0 lg:-mt-4 lg:py-4">
        <button type="submit" className="button button-strong min-h-11 w-full text-base">
          {w.draw}
          <kbd className="hidden font-sans text-xs font-normal opacity-75 sm:inline">Ctrl + Enter</kbd>
        </button>
      </div>
    </form>
  );
}

const NUMBERS = ["steps", "guidance_scale", "width", "height"] as const;
const ADVANCED = [...NUMBERS, "negative_prompt", "scheduler"];

const plain = (name: string) => name.replaceAll("_", " ");

function Presets({ can, wanted, setWanted, refused }: Filled) {
  const w = useWords();
  const chosen = wanted.preset || can.default_preset;
  const presets = Object.entries(can.presets).toSorted(([, one], [, two]) => one.steps - two.steps);
  const sized = new Set(presets.map(([, preset]) => preset.size)).size > 1;
  return (
    <fieldset className="space-y-1.5">
      <legend className="mb-1.5 text-sm font-medium">{w.preset}</legend>
      <div className="flex rounded-lg border border-edge bg-card p-0.5">
        {presets.map(([name, preset]) => (
          <label
            key={name}
            className="flex-1 cursor-pointer rounded-md px-2 py-1.5 text-center text-sm has-checked:bg-ink has-checked:text-paper has-focus-visible:outline-2 has-focus-visible:outline-offset-2 has-focus-visible:outline-accent"
          >
            <input
              type="radio"
              name="preset"
              className="sr-only"
              checked={name === chosen}
              onChange={() => setWanted((before) => ({ ...before, preset: name }))}
            />
            <span className="block font-medium">{plain(name)}</span>
            <span className="block text-xs tabular-nums opacity-80">
              {preset.steps} {w.steps.toLowerCase()}
              {sized && `, ${preset.size} px`}
            </span>
          </label>
        ))}
      </div>
      <Wrong name="preset" refused={refused} />
    </fieldset>
  );
}

function Advanced({ can, wanted, setWanted, refused }: Filled) {
  const w = useWords();
  const preset = can.presets[wanted.preset || can.default_preset];
  const usual: Record<string, string> = {
    ...Object.fromEntries(Object.entries(preset ?? {}).map(([name, value]) => [name, String(value)])),
    width: String(preset?.size ?? ""),
    height: String(preset?.size ?? ""),
  };
  const samplers = bounds(can, "scheduler")?.options;
  return (
    <>
      <Field name="negative_prompt" label={w.negative_prompt} refused={refused}>
        {(its) => (
          <textarea
            {...its}
            rows={2}
            className="field"
            value={wanted.negative_prompt}
            onChange={(event) => setWanted((before) => ({ ...before, negative_prompt: event.target.value }))}
          />
        )}
      </Field>
      <div className="grid grid-cols-2 gap-4">
        {NUMBERS.filter((name) => bounds(can, name)).map((name) => (
          <Field key={name} name={name} label={w[name]} refused={refused}>
            {(its) => (
              <NumberBox
                its={its}
                value={wanted[name]}
                hint={usual[name]}
                {...bounds(can, name)}
                onChange={(value) => setWanted((before) => ({ ...before, [name]: value }))}
              />
            )}
          </Field>
        ))}
      </div>
      {samplers && (
        <Field name="scheduler" label={w.scheduler} refused={refused}>
          {(its) => (
            <select
              {...its}
              className="field"
              value={wanted.scheduler ?? ""}
              onChange={(event) => setWanted((before) => ({ ...before, scheduler: event.target.value || null }))}
            >
              <option value="">{w.asPreset(usual.scheduler ?? "")}</option>
              {samplers.map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          )}
        </Field>
      )}
    </>
  );
}

/** A slider for the character's weight, and one for each further LoRA in use. */
function Loras({ can, wanted, setWanted, refused, scenes, loras }: FormProps) {
  const w = useWords();
  const { character } = useActs();
  const range = can.request.$defs?.LoraUse?.properties.weight?.anyOf?.[0];
  const put = (name: string, use: Use | null) =>
    setWanted((before) => ({
      ...before,
      loras: [...before.loras.filter((each) => each.name !== name), ...(use ? [use] : [])],
    }));
  const all = [{ name: character.trigger, kind: w.character, license: "", trigger: "", weight: 1, scenes: [] }, ...loras];
  const scene = can.engine === "torch" && scenes.find((each) => each.name === wanted.scene);
  return (
    <div className="space-y-4">
      {all.map(({ name, kind, license, weight, scenes: its }) => {
        const use = wanted.loras.find((each) => each.name === name);
        const own = name === character.trigger;
        const at = use?.weight ?? weight;
        const unasked = scene && [scene.name, scene.category].some((each) => its.includes(each));
        const on = use ? use.weight !== 0 : unasked;
        return (
          <div key={name} className="space-y-1">
            <label className="flex items-center gap-2 text-sm">
              {!own && (
                <input
                  type="checkbox"
                  className="size-4"
                  checked={Boolean(on)}
                  onChange={(event) =>
                    put(name, event.target.checked ? { name, weight } : unasked ? { name, weight: 0 } : null)
                  }
                />
              )}
              <span className="font-medium wrap-anywhere">{name}</span>
              <span className="text-quiet">{[kind, license].filter(Boolean).join(", ")}</span>
              <span className="ml-auto tabular-nums">{at.toFixed(2)}</span>
            </label>
            <input
              type="range"
              aria-label={w.weightOf(name)}
              className="block w-full"
              min={range?.minimum}
              max={range?.maximum}
              step={0.05}
              disabled={!own && !on}
              value={at}
              onChange={(event) => {
                const next = event.target.valueAsNumber;
                put(name, own && next === weight ? null : { name, weight: next });
              }}
            />
          </div>
        );
      })}
      <Wrong name="loras" refused={refused} />
    </div>
  );
}
