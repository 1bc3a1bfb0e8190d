// Graphile Worker, driven as protocol.py says. Run from the folder that its packages are installed in.

import { once } from "node:events";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

const require = createRequire(`${process.cwd()}/`);
const { Logger, makeWorkerUtils, run } = require("graphile-worker");
const { Pool } = require("pg");

const CONCURRENCY = 24;
const AT_ONCE = 1_000;
const CALLS_PER_SECOND = 50;
const COUNTERS = 1_000;
const WARM_UP = 20;

// What its documentation calls optimal, and with no queue in memory where latency counts.
const BATCHING = { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 };
const NO_LOCAL_QUEUE = { ...BATCHING, localQueue: { size: -1 } };

const [verb, address, ...options] = process.argv.slice(2);
const pool = new Pool({ connectionString: address, max: CONCURRENCY + 2 });
const logger = new Logger(() => () => {}); // on standard output are answers only
pool.on("error", (error) => console.error(error));
pool.on("connect", (client) => client.on("error", (error) => console.error(error)));
const starts = new Map();

const now = () => Number(process.hrtime.bigint()) / 1e9; // CLOCK_MONOTONIC
const say = (message) => console.log(JSON.stringify(message));
const jobs = (identifier, first, count) =>
  Array.from({ length: count }, (_, at) => ({ identifier, payload: { n: first + at } }));

const taskList = {
  noop: async () => {},
  note: async ({ n }) => {
    starts.set(n, now());
  },
  count: async ({ n }) => {
    const counter = n % COUNTERS;
    const client = await pool.connect();
    try {
      await client.query("BEGIN");
      const { rows } = await client.query("SELECT n FROM counters WHERE id = $1 FOR UPDATE", [counter]);
      await client.query("UPDATE counters SET n = $1 WHERE id = $2", [rows[0].n + 1, counter]);
      await client.query("INSERT INTO events (job, counter) VALUES ($1, $2)", [n, counter]);
      await client.query("COMMIT");
    } finally {
      client.release();
    }
  },
};

const startWorker = (settings) =>
  run({
    pgPool: pool,
    taskList,
    logger,
    noHandleSignals: true,
    preset: { worker: { concurrentJobs: CONCURRENCY, maxPoolSize: CONCURRENCY + 2, ...settings } },
  });

async function started(n) {
  while (!starts.has(n)) await sleep(10);
  return starts.get(n);
}

const verbs = {
  async setup(utils) {
    await utils.migrate();
    say({ version: require("graphile-worker/package.json").version });
  },

  async calls(utils, seconds, callers) {
    for (let n = 0; n < WARM_UP; n++) await utils.addJob("noop", { n });
    const since = now();
    const until = since + Number(seconds);
    let made = 0;
    const call = async () => {
      for (let n = 0; now() < until; n++, made++) await utils.addJob("noop", { n });
    };
    await Promise.all(Array.from({ length: Number(callers) }, call));
    say({ rate: made / (now() - since) });
  },

  async bulk(utils, seconds) {
    await utils.addJobs(jobs("noop", 0, WARM_UP));
    const since = now();
    let made = 0;
    for (; now() < since + Number(seconds); made += AT_ONCE) await utils.addJobs(jobs("noop", made, AT_ONCE));
    say({ rate: made / (now() - since) });
  },

  async fill(utils, task, count) {
    for (let first = 0; first < Number(count); first += AT_ONCE) {
      await utils.addJobs(jobs(task, first, Math.min(AT_ONCE, Number(count) - first)));
    }
    say({ filled: true });
  },

  async work() {
    say({ ready: true });
    await once(createInterface({ input: process.stdin }), "line");
    say({ began: now() });
    await (await startWorker(BATCHING)).promise;
  },

  async latency(utils, count) {
    await startWorker(NO_LOCAL_QUEUE);
    await utils.addJob("note", { n: -1 });
    await started(-1);
    const [called, returned, since] = [[], [], now()];
    for (let n = 0; n < Number(count); n++) {
      await sleep(Math.max(0, 1_000 * (since + n / CALLS_PER_SECOND - now())));
      called.push(now());
      await utils.addJob("note", { n });
      returned.push(now());
    }
    for (let n = 0; n < Number(count); n++) await started(n);
    const after = (moments) => moments.map((moment, n) => 1_000 * (starts.get(n) - moment));
    say({ latencies: { "": after(returned), " of call": after(called) } });
  },
};

await verbs[verb](await makeWorkerUtils({ pgPool: pool, logger }), ...options);
process.exit(0);
