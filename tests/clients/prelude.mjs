import { ConvexClient, ConvexHttpClient } from "convex/browser";
import { anyApi } from "convex/server";
import { ConvexError } from "convex/values";

const address = process.argv[2];
const api = anyApi;
const print = (value) => console.log("> " + JSON.stringify(value, (_, v) => (typeof v === "bigint" ? `${v}n` : v)));
const client = () => new ConvexClient(address, { unsavedChangesWarning: false });
const problemOf = (error) =>
  error instanceof ConvexError ? { data: error.data } : { message: error.message.split("\n")[0] };
const failure = (promise) => promise.then((value) => ({ value }), problemOf);

const happens = async (condition) => {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
};

/** Waits until what a query returns fulfils a condition. */
const until = (c, ref, args, holds) =>
  new Promise((resolve) => {
    const stop = c.onUpdate(ref, args, (value) => {
      if (holds(value)) {
        setTimeout(() => stop());
        resolve(value);
      }
    });
  });

/** The values of a query, without those that are equal to the one before. */
const changesOf = (c, ref, args) => {
  const seen = [];
  c.onUpdate(ref, args, (value) => {
    if (JSON.stringify(value) !== JSON.stringify(seen.at(-1))) seen.push(value);
  });
  return seen;
};
