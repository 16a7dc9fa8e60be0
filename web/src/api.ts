/** Client of the API of `kedro serve`; docs/serving.md documents the API. */

export interface Use {
  name: string;
  weight: number | null;
}

export interface Control {
  kind: string;
  image: string;
  scale: number;
  preprocess: boolean;
}

/** A generation request; null takes the preset's value. Images are data URLs. */
export interface Wanted {
  prompt: string;
  scene: string;
  negative_prompt: string;
  seed: number | null;
  num_images: number;
  preset: string;
  steps: number | null;
  guidance_scale: number | null;
  width: number | null;
  height: number | null;
  scheduler: string | null;
  loras: Use[];
  image: string | null;
  strength: number | null;
  mask: string | null;
  controls: Control[];
}

export interface Picture {
  seed: number;
  url: string | null;
  blocked_reason: string;
  identity?: number | null;
  /** attributes that the prompt names; empty where nothing judges them */
  attributes: Attribute[];
}

export interface Attribute {
  name: string;
  requested: string;
  /** equal to `requested` where the image shows it */
  seen: string;
}

export interface Job {
  id: string;
  state: "queued" | "running" | "done" | "failed" | "cancelled";
  position: number | null;
  step: number;
  steps: number;
  eta_seconds: number | null;
  /** seconds since 1970 */
  created_at: number;
  /** resolved: no default and no random value is left open */
  request: Wanted;
  images: Picture[];
  /** parts of the request that had no effect */
  warnings: string[];
  error: string;
}

interface Schema {
  type?: string;
  anyOf?: Schema[];
  enum?: string[];
  minimum?: number;
  maximum?: number;
  multipleOf?: number;
}

export interface Capabilities {
  engine: string;
  presets: Record<string, { steps: number; guidance_scale: number; size: number; scheduler: string }>;
  default_preset: string;
  request: { properties: Record<string, Schema>; $defs?: Record<string, { properties: Record<string, Schema> }> };
  controls?: string[];
}

export interface Scene {
  name: string;
  category: string;
  words: string;
}

export interface Lora {
  name: string;
  kind: string;
  license: string;
  trigger: string;
  weight: number;
  /** Scenes or categories of scenes that use it automatically. */
  scenes: string[];
}

export interface Character {
  name: string;
  trigger: string;
  class_word: string;
  identity?: { gate: number; ceiling: number } | null;
}

export interface Marks {
  marks: string[];
  request: Partial<Wanted> | null;
}

/** An error response of the server; `field` is the invalid field of the request, or "". */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly field = "",
  ) {
    super(message);
  }
}

export function setKey(key: string): void {
  sessionStorage.setItem("key", key);
}

export const hasKey = () => sessionStorage.getItem("key") !== null;

/** Return the response; a GET that exceeds the rate limit waits and is retried. */
async function call(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  const key = sessionStorage.getItem("key");
  if (key) headers.set("authorization", `Bearer ${key}`);
  const answer = await fetch(path, { ...init, headers });
  if (answer.ok) return answer;
  if (answer.status === 429 && !init.method) {
    await pause(Number(answer.headers.get("retry-after") ?? 1));
    init.signal?.throwIfAborted();
    return call(path, init);
  }
  const body = await answer.json().catch(() => null);
  throw new Refused(answer.status, body?.error?.message ?? answer.statusText, body?.error?.param ?? "");
}

async function read<T>(path: string): Promise<T> {
  return (await call(path)).json();
}

/** Return a default where a server of another version does not have the resource (404). */
async function or<T>(without: T, answer: Promise<T>): Promise<T> {
  return answer.catch((err) => {
    if (err instanceof Refused && err.status === 404) return without;
    throw err;
  });
}

async function post<T>(path: string, body: unknown): Promise<T> {
  const headers = { "content-type": "application/json" };
  return (await call(path, { method: "POST", headers, body: JSON.stringify(body) })).json();
}

export const pause = (seconds: number) => new Promise((done) => setTimeout(done, 1000 * seconds));

export const capabilities = () => read<Capabilities>("/v1/capabilities");
export const characters = () => read<Character[]>("/v1/characters");
export const loras = () => read<Lora[]>("/v1/loras");
export const scenes = () => or([], read<Scene[]>("/v1/scenes"));
export const jobs = () => read<Job[]>("/v1/jobs?limit=50");
export const generate = (wanted: Partial<Wanted>) => post<Job>("/v1/generations", wanted);
export const verify = (image: string) => or(null, post<Marks | null>("/v1/verify", { image }));

export async function cancel(job: string): Promise<Job> {
  return (await call(`/v1/jobs/${job}`, { method: "DELETE" })).json();
}

/** Return an image's file. It never changes, so the browser's cache is used. */
export async function file(url: string, signal?: AbortSignal): Promise<Blob> {
  return (await call(url, { cache: "force-cache", signal })).blob();
}

export type Event = { event: "status"; data: Job } | { event: "preview"; data: { jpeg: string } };

/** Yield a job's events until it has ended. Uses fetch, because EventSource cannot send an API key. */
export async function* events(job: string, signal: AbortSignal): AsyncGenerator<Event> {
  const answer = await call(`/v1/jobs/${job}/events`, { signal });
  const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split(/\r?\n\r?\n/);
    text = blocks.pop() ?? "";
    for (const block of blocks) {
      const lines = block.split(/\r?\n/);
      const part = (name: string) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      const data = part("data");
      if (data) yield { event: part("event"), data: JSON.parse(data) } as Event;
    }
  }
}

/** Return the allowed values of a field, or null if this server does not have the field. */
export function bounds(can: Capabilities, field: string) {
  const schema = can.request.properties[field];
  const one = schema?.anyOf?.find((each) => each.type !== "null") ?? schema;
  return one ? { min: one.minimum, max: one.maximum, step: one.multipleOf, options: one.enum } : null;
}

/** Return the request without fields that this server does not have. */
export function known(can: Capabilities, wanted: Partial<Wanted>): Partial<Wanted> {
  return Object.fromEntries(Object.entries(wanted).filter(([field]) => field in can.request.properties));
}
