"use strict";
// Puts the rows that the agent renders into the table, and keeps no more than it can show. It draws
// a few times a second, whatever comes, so that any number of events leaves the page alive.
(() => {
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      button.textContent = "Copied";
    });
  }

  const table = document.getElementById("events");
  if (!table) return;
  const body = table.tBodies[0];
  const shown = Number(table.dataset.shown);
  const state = document.getElementById("state");
  const count = document.getElementById("count");
  const pause = document.getElementById("pause");
  let waiting = [];
  let isPaused = false;
  let isScheduled = false;
  let drawn = 0;
  let seen = 0;
  let lost = 0;

  const draw = () => {
    isScheduled = false;
    if (isPaused) return;
    drawn = performance.now();
    const template = document.createElement("template");
    template.innerHTML = waiting.reverse().join("");
    waiting = [];
    while (template.content.children.length > shown) template.content.lastElementChild.remove();
    body.prepend(template.content);
    while (body.rows.length > shown) body.deleteRow(-1);
    count.textContent = `${seen} new` + (lost ? `, ${lost} more were lost` : "");
  };
  const schedule = () => {
    if (isScheduled || isPaused) return;
    isScheduled = true;
    // A tab that nobody sees draws nothing until it is looked at.
    setTimeout(() => requestAnimationFrame(draw), Math.max(0, drawn + 250 - performance.now()));
  };

  const wanted = new URLSearchParams(location.search);
  wanted.set("after", table.dataset.after);
  const source = new EventSource(`${table.dataset.stream}?${wanted}`);
  source.addEventListener("open", () => {
    state.textContent = "Live.";
    pause.hidden = false;
  });
  source.addEventListener("error", () => {
    state.textContent = "The agent does not answer. Trying again.";
  });
  source.addEventListener("message", (message) => {
    const batch = JSON.parse(message.data);
    seen += batch.events;
    lost += batch.lost;
    waiting.push(batch.rows);
    // Each has as many rows as are shown, at most.
    if (waiting.length > 10) waiting.shift();
    schedule();
  });
  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.textContent = isPaused ? "Go on" : "Pause";
    schedule();
  });
})();
