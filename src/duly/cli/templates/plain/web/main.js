import { ConvexClient } from "convex/browser";
import { anyApi as api } from "convex/server";

const client = new ConvexClient("http://127.0.0.1:3210"); // the address that `duly dev` prints

const find = (id) => document.getElementById(id);

/** Make an element. Children are elements or text, which is never read as HTML. */
function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const state = (kind) => element("span", { className: `state ${kind}` }, kind);

// Each callback runs now, and whenever what its query returns changes.

client.onUpdate(api.tasks.count_open, {}, (open) => {
  find("open").textContent = open;
});

client.onUpdate(api.tasks.page, { paginationOpts: { numItems: 20, cursor: null } }, ({ page }) => {
  find("tasks").replaceChildren(...page.map(row));
});

function row(task) {
  const finish = () => client.mutation(api.tasks.finish, { task_id: task._id });
  const box = element("input", {
    type: "checkbox",
    checked: task.done,
    disabled: task.done,
    onchange: finish,
  });
  return element(
    "li",
    { className: task.done ? "done" : "" },
    element("label", {}, box, task.text),
    ...(task.reminder_state ? [state(task.reminder_state)] : []),
  );
}

client.onUpdate(api.tasks.scheduled, {}, (functions) => {
  const cells = (one) => [
    element("code", {}, one.name),
    element("time", {}, new Date(one.scheduledTime).toLocaleTimeString()),
    state(one.state.kind),
  ];
  find("scheduled").replaceChildren(
    ...functions.map((one) => element("tr", {}, ...cells(one).map((cell) => element("td", {}, cell)))),
  );
});

find("new").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { text, remind_after } = Object.fromEntries(new FormData(event.target));
  event.target.reset();
  find("error").hidden = true;
  try {
    await client.mutation(api.tasks.add, { text, remind_after: Number(remind_after) });
  } catch (failure) {
    find("error").textContent = failure.data?.message ?? failure.message; // `data` is that of an AppError
    find("error").hidden = false;
  }
});

function showConnection({ isWebSocketConnected }) {
  find("connection").replaceWith(
    Object.assign(state(isWebSocketConnected ? "live" : "offline"), { id: "connection" }),
  );
}

showConnection(client.connectionState());
client.subscribeToConnectionState(showConnection);
