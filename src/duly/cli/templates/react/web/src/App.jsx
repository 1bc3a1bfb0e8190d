import {
  optimisticallyUpdateValueInPaginatedQuery,
  useConvexConnectionState,
  useMutation,
  usePaginatedQuery,
  useQuery,
} from "convex/react";
import { anyApi as api } from "convex/server";
import { useState } from "react";

export default function App() {
  return (
    <>
      <header>
        <h1>Tasks</h1>
        <Connection />
      </header>
      <NewTask />
      <Tasks />
      <Scheduled />
    </>
  );
}

function Connection() {
  const { isWebSocketConnected } = useConvexConnectionState();
  return isWebSocketConnected ? <State kind="live" /> : <State kind="offline" />;
}

function NewTask() {
  const add = useMutation(api.tasks.add);
  const [error, setError] = useState(null);

  async function submit(event) {
    event.preventDefault();
    const form = event.currentTarget;
    const { text, remind_after } = Object.fromEntries(new FormData(form));
    form.reset();
    try {
      await add({ text, remind_after: Number(remind_after) });
      setError(null);
    } catch (failure) {
      setError(failure.data?.message ?? failure.message); // `data` is that of an AppError
    }
  }

  return (
    <section>
      <form onSubmit={submit}>
        <input name="text" aria-label="Task" placeholder="What is to be done?" autoComplete="off" />
        <select name="remind_after" aria-label="Reminder">
          <option value="5">remind in 5 seconds</option>
          <option value="60">in a minute</option>
          <option value="3600">in an hour</option>
        </select>
        <button>Add</button>
      </form>
      {error && <p className="error">{error}</p>}
    </section>
  );
}

function Tasks() {
  const open = useQuery(api.tasks.count_open);
  const { results, status, loadMore } = usePaginatedQuery(api.tasks.page, {}, { initialNumItems: 5 });
  // The box is checked at once. What the mutation has really done follows, or the box is as it was.
  const finish = useMutation(api.tasks.finish).withOptimisticUpdate((shown, { task_id }) =>
    optimisticallyUpdateValueInPaginatedQuery(shown, api.tasks.page, {}, (task) =>
      task._id === task_id ? { ...task, done: true } : task,
    ),
  );
  return (
    <section>
      <h2>
        To do <span className="quiet">{open}</span>
      </h2>
      <ul aria-label="Tasks">
        {results.map((task) => (
          <li key={task._id} className={task.done ? "done" : undefined}>
            <label>
              <input
                type="checkbox"
                checked={task.done}
                disabled={task.done}
                onChange={() => finish({ task_id: task._id })}
              />
              {task.text}
            </label>
            {task.reminder_state && <State kind={task.reminder_state} />}
          </li>
        ))}
      </ul>
      {status !== "Exhausted" && (
        <button disabled={status !== "CanLoadMore"} onClick={() => loadMore(5)}>
          More
        </button>
      )}
      {status === "Exhausted" && results.length === 0 && <p className="quiet">Nothing yet.</p>}
    </section>
  );
}

/** The table `_scheduled_functions`, live: a reminder is pending, and later success or canceled. */
function Scheduled() {
  const functions = useQuery(api.tasks.scheduled);
  return (
    <section>
      <h2>Scheduled functions</h2>
      <table aria-label="Scheduled functions">
        <tbody>
          {functions?.map((one) => (
            <tr key={one._id}>
              <td>
                <code>{one.name}</code>
              </td>
              <td>
                <time>{new Date(one.scheduledTime).toLocaleTimeString()}</time>
              </td>
              <td>
                <State kind={one.state.kind} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {functions?.length === 0 && <p className="quiet">Nothing yet.</p>}
    </section>
  );
}

function State({ kind }) {
  return <span className={`state ${kind}`}>{kind}</span>;
}
