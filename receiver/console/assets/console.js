// Keeps a page up to date, and shows times in the zone of who reads them. All works without it.
"use strict";

// Sweden writes dates as ISO 8601 does
const clock = new Intl.DateTimeFormat("sv-SE", { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 });
const full = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "medium" });

function showTimes(inside) {
  for (const one of inside.querySelectorAll("time[datetime]")) {
    const at = new Date(one.dateTime);
    if (!isNaN(at)) one.textContent = ("clock" in one.dataset ? clock : full).format(at);
  }
}

// refresh fetches the page again and puts in what may have changed; what is open stays open.
async function refresh() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  showTimes(fresh);
  const open = [...document.querySelectorAll("details[open][id]")].map((one) => one.id);
  const focused = document.activeElement?.closest("details[id]")?.id;
  const now = document.querySelectorAll("[data-live]");
  fresh.querySelectorAll("[data-live]").forEach((part, i) => now[i]?.replaceChildren(...part.childNodes));
  for (const id of open) {
    const one = document.getElementById(id);
    if (one) one.open = true;
  }
  if (focused && document.activeElement === document.body) document.getElementById(focused)?.querySelector("summary").focus();
  const problems = document.querySelector(".problems"), other = fresh.querySelector(".problems");
  if (problems && other) problems.replaceWith(other);
  else if (problems) problems.remove();
  else if (other) document.querySelector("main").prepend(other);
}

let busy = false, again = false;
async function changed() {
  if (busy) { again = true; return; }
  busy = true;
  try { await refresh(); } catch { /* the next change tries again */ }
  await new Promise((done) => setTimeout(done, 1000)); // at most once a second
  busy = false;
  if (again) { again = false; changed(); }
}

// follow listens for changes, where the page has a part that can change and shows the newest.
function follow() {
  const state = document.getElementById("live");
  if (!document.querySelector("[data-live]") || new URLSearchParams(location.search).has("before")) return;
  const say = (on) => { state.className = "live " + (on ? "on" : "off"); state.textContent = on ? "live" : "not connected"; };
  const events = new EventSource("/live");
  events.onopen = () => say(true);
  events.onerror = () => say(false);
  events.addEventListener("change", changed);
}

document.addEventListener("keydown", (key) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName);
  if (key.key === "/" && !typing && !key.ctrlKey && !key.metaKey) {
    const search = document.getElementById("search");
    if (search) { key.preventDefault(); search.focus(); }
  }
});

showTimes(document);
follow();
