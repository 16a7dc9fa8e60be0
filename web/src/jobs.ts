/** The jobs of who asks, newest first: listed, followed while they are drawn, cancelled. */

import { useCallback, useEffect, useState } from "react";
import * as api from "./api";
import type { Job, Wanted } from "./api";

export const ended = (job: Job) => job.state !== "queued" && job.state !== "running";

export interface Preview {
  job: string;
  src: string;
}

/** Seconds between looks at jobs that wait behind the one that is followed. */
const SELDOM = 3;

/** `complain` is told of what goes wrong. */
export function useJobs(complain: (err: unknown) => void) {
  const [jobs, setJobs] = useState<Job[]>([]);
  const [preview, setPreview] = useState<Preview | null>(null);

  const put = useCallback((job: Job) => {
    setJobs((before) =>
      [job, ...before.filter((each) => each.id !== job.id)].sort((one, two) => two.accepted - one.accepted),
    );
  }, []);
  const refresh = useCallback(() => api.jobs().then(setJobs).catch(complain), [complain]);

  useEffect(() => {
    void refresh();
  }, [refresh]);

  const going = jobs.filter((job) => !ended(job));
  const first = going.at(-1)?.id; // one stream: a browser keeps six connections to a server, for everything
  useEffect(() => {
    if (!first) return;
    const left = new AbortController();
    void follow(first, left.signal, put, setPreview).then(refresh, () => undefined);
    return () => left.abort();
  }, [first, put, refresh]);

  const others = going.length > 1;
  useEffect(() => {
    if (!others) return;
    const timer = setInterval(refresh, 1000 * SELDOM);
    return () => clearInterval(timer);
  }, [others, refresh]);

  return {
    jobs,
    going,
    preview,
    async draw(wanted: Partial<Wanted>): Promise<Job> {
      const job = await api.generate(wanted);
      put(job);
      return job;
    },
    cancel: (job: string) => api.cancel(job).then(put).catch(complain),
  };
}

/** Pass a job's events on until it has ended, whatever happens to the connection. */
async function follow(
  job: string,
  left: AbortSignal,
  put: (job: Job) => void,
  show: (preview: Preview) => void,
): Promise<void> {
  while (!left.aborted) {
    try {
      for await (const told of api.events(job, left)) {
        if (told.event === "preview") show({ job, src: `data:image/jpeg;base64,${told.data.jpeg}` });
        else put(told.data);
        if (told.event === "status" && ended(told.data)) return;
      }
    } catch (err) {
      if (err instanceof api.Refused) return; // it was forgotten, or the key is no longer good
    }
    await api.pause(1);
  }
}
