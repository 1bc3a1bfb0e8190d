"""The pages of `duly init` in a real browser: two tabs see what either does, also while the server is killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.clients.browser import build, in_browser, needs_browser, new_shop, served
from tests.clients.node import Script
from tests.clients.server import Server
from tests.clients.tokens import ONE, TOKENS, backend_that_trusts
from tests.server.signing import APPLICATION, custom

pytestmark = [needs_browser, pytest.mark.slow]


class Shop(NamedTuple):
    """A made application that is served, and its page in React."""

    server: Server
    page: str
    pictures: Path

    def run(self, source: str) -> Script:
        return in_browser(self.page, self.server.address, self.pictures, source)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = new_shop(tmp_path, "react")
    with Server(tmp_path, "serve", made / "backend") as server, served(build(made / "web", server.address)) as page:
        yield Shop(server, page, tmp_path / "pictures")


def test_two_tabs_see_tasks_and_scheduled_functions_change(shop: Shop) -> None:
    script = """
    const [a, b] = [await tab(), await tab()];
    await add(a, "feed the cat");
    print(await until(() => tasks(b), (found) => found.length === 1));
    print(await until(() => scheduled(b), (found) => found.length === 1));
    await finish(b, "feed the cat");
    print(await until(() => tasks(a), ([task]) => task.endsWith("canceled")));
    print(await a.getByLabel("feed the cat").isChecked());

    await a.evaluate(() => {
      window.seen = [];
      new MutationObserver(() => {
        const now = document.querySelector("li").innerText.replace("\\n", " ");
        if (now.startsWith("make tea") && now !== window.seen.at(-1)) window.seen.push(now);
      }).observe(document.body, { childList: true, subtree: true, characterData: true });
    });
    await http.mutation(api.tasks.add, { text: "make tea", remind_after: 10 });
    for (const each of [a, b]) await until(() => tasks(each), ([task]) => task === "make tea success");
    print(await a.evaluate(() => window.seen));
    print(await until(() => scheduled(b), ([newest]) => newest === "tasks:notify success"));

    await add(b, "   ");
    print(await b.locator(".error").textContent());
    await picture(a, "tasks");
    await browser.close();
    """
    with shop.run(script) as running:
        first, pending, canceled, is_checked, seen, jobs, error = running.rest()
    assert (first, pending) == (["feed the cat pending"], ["tasks:remind pending"])
    assert (canceled, is_checked) == (["feed the cat canceled"], True)
    assert seen == ["make tea pending", "make tea success"]
    assert jobs == ["tasks:notify success", "tasks:remind success", "tasks:remind canceled"]
    assert error == "A task needs a text"
    assert (shop.pictures / "tasks.png").stat().st_size > 0


def test_pages_grow_while_rows_are_added(shop: Shop) -> None:
    script = """
    for (let n = 1; n <= 12; n++) await http.mutation(api.tasks.add, { text: `${n}`, remind_after: 3600 });
    const [a, b] = [await tab(), await tab()];
    const numbers = async (tab) => (await tasks(tab)).map((task) => parseInt(task));
    print(await until(() => numbers(a), (found) => found.length === 5));
    await a.getByRole("button", { name: "More" }).click();
    print(await until(() => numbers(a), (found) => found.length === 10));
    for (const n of ["13", "14"]) await add(b, n);
    print(await until(() => numbers(a), ([newest]) => newest === 14));
    await a.getByRole("button", { name: "More" }).click();
    print(await until(() => numbers(a), (found) => found.at(-1) === 1));
    print(await a.getByRole("button", { name: "More" }).count());
    await picture(a, "pages");
    await browser.close();
    """
    with shop.run(script) as running:
        first, second, grown, all_of_them, more = running.rest()
    assert first == [12, 11, 10, 9, 8]
    assert second == [12, 11, 10, 9, 8, 7, 6, 5, 4, 3]
    assert grown == [14, 13, *second]
    assert (all_of_them, more) == (list(range(14, 0, -1)), 0)


def test_tabs_go_on_after_the_server_was_killed_and_a_mutation_of_meanwhile_happens_once(shop: Shop) -> None:
    script = """
    const [a, b] = [await tab(), await tab()];
    await add(a, "before");
    await until(() => tasks(b), (found) => found.length === 1);
    print("kill");
    for (const each of [a, b]) await each.getByText("offline").waitFor();
    await add(a, "meanwhile");
    await picture(a, "offline");
    print("start");
    for (const each of [a, b]) await until(() => tasks(each), (found) => found.length > 1);
    await add(b, "after");
    for (const each of [a, b]) print(await until(() => tasks(each), (found) => found.length > 2));
    for (const each of [a, b]) print(await each.getByText("live").count());
    print(await http.query(api.tasks.count_open, {}));
    await browser.close();
    """
    with shop.run(script) as running:
        assert running.next() == "kill"
        shop.server.kill()
        assert running.next() == "start"
        shop.server.start()
        seen = running.rest()
    tasks = ["after pending", "meanwhile pending", "before pending"]
    assert seen == [tasks, tasks, 1, 1, 3]


def test_a_page_without_a_user_is_not_authenticated(tmp_path: Path) -> None:
    made = new_shop(tmp_path, "react")
    (made / "web" / "src" / "main.jsx").write_text(WITHOUT_USER)
    script = """
    const a = await tab();
    print(await until(() => a.getByRole("status").textContent(), (found) => !found.includes("loading")));
    await add(a, "make tea");
    print(await until(() => tasks(a), (found) => found.length === 1));
    await browser.close();
    """
    with (
        Server(tmp_path, "serve", made / "backend") as server,
        served(build(made / "web", server.address)) as page,
        in_browser(page, server.address, tmp_path / "pictures", script) as running,
    ):
        assert running.rest() == ["not authenticated", ["make tea pending"]]


WITHOUT_USER = """
import { ConvexProviderWithAuth, ConvexReactClient, useConvexAuth } from "convex/react";
import { createRoot } from "react-dom/client";
import App from "./App.jsx";

const convex = new ConvexReactClient(import.meta.env.VITE_CONVEX_URL);
const nobody = { isLoading: false, isAuthenticated: false, fetchAccessToken: async () => null };

function Status() {
  const { isLoading, isAuthenticated } = useConvexAuth();
  return <p role="status">{isLoading ? "loading" : isAuthenticated ? "authenticated" : "not authenticated"}</p>;
}

createRoot(document.getElementById("root")).render(
  <ConvexProviderWithAuth client={convex} useAuth={() => nobody}>
    <Status />
    <App />
  </ConvexProviderWithAuth>,
);
"""


def test_a_user_logs_in_keeps_its_tokens_fresh_and_logs_out(tmp_path: Path) -> None:
    made = new_shop(tmp_path, "react")
    (made / "web" / "src" / "main.jsx").write_text(WITH_USER)
    script = """
    await context.exposeFunction("fetchToken", () => token(3));
    const a = await tab();
    const shown = (text) => a.getByText(text, { exact: true }).waitFor();
    const log = (direction) => a.getByRole("button", { name: `Log ${direction}` }).click();
    await shown("I am anonymous");
    await log("in");
    await shown("I am ada");
    await a.evaluate(() => {
      window.seen = new Set([document.body.innerText]);
      new MutationObserver(() => window.seen.add(document.body.innerText))
        .observe(document.body, { childList: true, subtree: true, characterData: true });
    });
    await until(() => made, (n) => n === 5);  // the first one, a fresh one at once, and then one a second
    await a.getByRole("button", { name: "Send" }).click();
    await shown("1 messages");
    print(await a.evaluate(() => [...window.seen].map((text) => text.split(/\\s*\\n\\s*/))));
    await picture(a, "logged_in");
    await log("out");
    await shown("I am anonymous");
    await a.getByRole("button", { name: "Log in" }).waitFor();
    await browser.close();
    """
    backend = backend_that_trusts(tmp_path, custom(ONE, application_id=APPLICATION))
    with (
        Server(tmp_path, "serve", backend) as server,
        served(build(made / "web", server.address)) as page,
        in_browser(page, server.address, tmp_path / "pictures", TOKENS + script) as running,
    ):
        [seen] = running.rest()
    assert seen == [["I am ada", "0 messages", "Send", "Log out"], ["I am ada", "1 messages", "Send", "Log out"]]


WITH_USER = """
import { Authenticated, ConvexProviderWithAuth, ConvexReactClient, Unauthenticated } from "convex/react";
import { useConvexAuth, useMutation, useQuery } from "convex/react";
import { anyApi as api } from "convex/server";
import { createContext, useCallback, useContext, useMemo, useState } from "react";
import { createRoot } from "react-dom/client";

const options = { authRefreshTokenLeewaySeconds: 2 };
const convex = new ConvexReactClient(import.meta.env.VITE_CONVEX_URL, options);
const Login = createContext();

function useLogin() {
  const [isAuthenticated] = useContext(Login);
  const fetchAccessToken = useCallback(() => window.fetchToken(), []);
  return useMemo(() => ({ isLoading: false, isAuthenticated, fetchAccessToken }), [isAuthenticated]);
}

function Page() {
  const { isLoading } = useConvexAuth();
  const me = useQuery(api.messages.me);
  const count = useQuery(api.messages.count);
  const send = useMutation(api.messages.send);
  const [, setIn] = useContext(Login);
  if (isLoading || me === undefined || count === undefined) return <p>loading</p>;
  return (
    <>
      <p>I am {me === null ? "anonymous" : me.subject}</p>
      <p>{count} messages</p>
      <p><button onClick={() => send({ body: "hello" })}>Send</button></p>
      <Authenticated><button onClick={() => setIn(false)}>Log out</button></Authenticated>
      <Unauthenticated><button onClick={() => setIn(true)}>Log in</button></Unauthenticated>
    </>
  );
}

function Root() {
  return (
    <Login.Provider value={useState(false)}>
      <ConvexProviderWithAuth client={convex} useAuth={useLogin}><Page /></ConvexProviderWithAuth>
    </Login.Provider>
  );
}

createRoot(document.getElementById("root")).render(<Root />);
"""


def test_the_page_without_a_build_is_live_too(tmp_path: Path) -> None:
    web = new_shop(tmp_path, "plain") / "web"
    script = """
    const [a, b] = [await tab(), await tab()];
    await add(a, "make tea", "remind in 5 seconds");
    await until(() => tasks(b), (found) => found.length === 1);
    await add(b, "feed the <b>cat</b>");
    await until(() => tasks(a), (found) => found.length === 2);
    await finish(a, "feed the <b>cat</b>");
    await until(() => tasks(b), ([cat]) => cat.endsWith("canceled"));
    print(await until(() => tasks(b), ([, tea]) => tea.endsWith("success")));
    print(await until(() => scheduled(b), (found) => found.length === 3));
    await add(b, " ");
    print(await until(() => b.locator(".error").textContent(), (found) => found !== ""));
    await b.getByText("live").waitFor();
    await picture(b, "plain");
    await browser.close();
    """
    with Server(tmp_path, "dev", web.parent / "backend") as server, served(web) as page:
        (web / "main.js").write_text((web / "main.js").read_text().replace("http://127.0.0.1:3210", server.address))
        with in_browser(page, server.address, tmp_path / "pictures", script) as running:
            both, jobs, error = running.rest()
    assert both == ["feed the <b>cat</b> canceled", "make tea success"]
    assert sorted(job.partition(" ")[0] for job in jobs) == ["tasks:notify", "tasks:remind", "tasks:remind"]
    assert error == "A task needs a text"
