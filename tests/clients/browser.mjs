import { ConvexHttpClient } from "convex/browser";
import { anyApi as api } from "convex/server";
import { chromium } from "playwright-core";

const [page, address, executablePath, pictures] = process.argv.slice(2);
const print = (value) => console.log("> " + JSON.stringify(value));
const http = new ConvexHttpClient(address);

const quiet = ["gpu", "quic", "background-networking", "component-update", "sync"].map(
  (name) => `--disable-${name}`,
);
const browser = await chromium.launch({
  executablePath,
  chromiumSandbox: false,
  args: [...quiet, "--no-first-run"],
});
process.on("uncaughtException", async (error) => {
  console.log(error.stack);
  await browser.close(); // which removes its temporary files
  process.exit(1);
});
const context = await browser.newContext({ viewport: { width: 820, height: 900 } });

/** Opens the page once more. What it logs as an error is printed, and a page that does not load is an error. */
const tab = async () => {
  const opened = await context.newPage();
  opened.on("pageerror", (error) => console.log(`the page: ${error.stack}`));
  opened.on("console", (message) => message.type() === "error" && console.log(`the page: ${message.text()}`));
  await opened.goto(page);
  return opened;
};

/** Waits until what a function finds fulfils a condition, and returns it. */
const until = async (find, holds) => {
  for (const end = Date.now() + 30_000; ; await new Promise((resolve) => setTimeout(resolve, 20))) {
    const found = await find();
    if (holds(found)) return found;
    if (Date.now() > end) throw new Error(`got ${JSON.stringify(found)}, expected ${holds}`);
  }
};

/** The rows of a list or table, each as its text. */
const rows = (tab, role, name) =>
  tab
    .getByRole(role, { name })
    .getByRole(role === "list" ? "listitem" : "row")
    .evaluateAll((found) =>
      found.map((one) => [...one.children].map((part) => part.textContent.trim()).join(" ")),
    );
const tasks = (tab) => rows(tab, "list", "Tasks");
const scheduled = async (tab) =>
  (await rows(tab, "table", "Scheduled functions")).map((row) => row.replace(/ \d+:\d\d:\d\d(\s[AP]M)?/, ""));

const add = async (tab, text, reminder = "in an hour") => {
  await tab.getByLabel("Task", { exact: true }).fill(text);
  await tab.getByLabel("Reminder").selectOption(reminder);
  await tab.getByRole("button", { name: "Add" }).click();
};
const finish = (tab, text) => tab.getByLabel(text).check();
const picture = (tab, name) => tab.screenshot({ path: `${pictures}/${name}.png`, fullPage: true });
