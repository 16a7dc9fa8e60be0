/** Jobs of this client, newest first: list, follow and cancel them. */

import { useCallback, useEffect, useState } from "react";
import * as api from "./api";
import type { Job, Wanted } from "./api";

export const ended = (job: Job) => job.state !== "queued" && job.state !== "running";

export interface Preview {
  job: string;
  src: string;
}

/** Poll interval for jobs that wait behind the followed one. */
const POLL_SECONDS = 3;

/** Return the jobs and their actions; `complain` is called with errors. */
export function useJobs(complain: (err: unknown) => void) {
  const [jobs, setJobs] = useState<Job[]>([]);
  const [preview, setPreview] = useState<Preview | null>(null);

  const put = useCallback((job: Job) => {
    setJobs((before) =>
      [job, ...before.filter((each) => each.id !== job.id)].sort((one, two) => two.created_at - one.created_at),
    );
  }, []);
  const refresh = useCallback(() => api.jobs().then(setJobs).catch(complain), [complain]);

  useEffect(() => {
    void refresh();
  }, [refresh]);

  const going = jobs.filter((job) => !ended(job));
  const first = going.at(-1)?.id; // one stream: browsers allow six connections to a server
  useEffect(() => {
    if (!first) return;
    const left = new AbortController();
    void follow(first, left.signal, put, setPreview).then(refresh, () => undefined);
    return () => left.abort();
  }, [first, put, refresh]);

  const others = going.length > 1;
  useEffect(() => {
    if (!others) return;
    const timer = setInterval(refresh, 1000 * POLL_SECONDS);
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

/** Pass on a job's events until it has ended; reconnect when the connection breaks. */
async function follow(
  job: string,
  left: AbortSignal,
  put: (job: Job) => void,
  show: (preview: Preview) => void,
): Promise<void> {
  while (!left.aborted) {
    try {
      for await (const message of api.events(job, left)) {
        if (message.event === "preview") show({ job, src: `data:image/jpeg;base64,${message.data.jpeg}` });
        else put(message.data);
        if (message.event === "status" && ended(message.data)) return;
      }
    } catch (err) {
      if (err instanceof api.Refused) return; // the job was deleted, or the key is no longer valid
    }
    await api.pause(1);
  }
}
