// What pages do by themselves: keep up to date, draw charts, take the code of a one-time
// address. Without this script every page is whole, and is up to date when it is loaded.
"use strict";
(() => {
  // The code stands in the fragment, which is sent to nobody.
  const onetime = document.querySelector("form[data-code]");
  if (onetime && location.hash.length > 1) {
    onetime.elements.secret.value = decodeURIComponent(location.hash.slice(1));
    history.replaceState(null, "", location.pathname + location.search);
    onetime.submit();
  }

  const main = document.querySelector("main[data-live]");
  if (!main) return;
  const away = main.querySelector(".away");
  let stream = null, retry = 0;

  // Parts of the page that have changed are replaced; what is open in them stays open, and
  // what has the focus keeps it.
  const replace = (html) => {
    const next = new DOMParser().parseFromString(html, "text/html");
    for (const part of next.querySelectorAll("[data-part][id]")) {
      const old = document.getElementById(part.id);
      if (!old || old.isEqualNode(part)) continue;
      const active = old.contains(document.activeElement) ? document.activeElement : null;
      if (active && active.matches("input, select, textarea")) continue;
      const open = [...old.querySelectorAll("details")].map((d) => d.open);
      const reach = "a[href], button, summary, [tabindex]";
      const place = active ? [...old.querySelectorAll(reach)].indexOf(active) : -1;
      const shown = document.importNode(part, true);
      if (old.querySelector("details[open]") && old.querySelector("form input:not([type=hidden])")) continue;
      [...shown.querySelectorAll("details")].forEach((d, i) => { d.open = open[i] || false; });
      old.replaceWith(shown);
      if (place >= 0) shown.querySelectorAll(reach)[place]?.focus({ preventScroll: true });
    }
  };

  const show = (yes) => { away.hidden = yes; };
  const start = () => {
    if (stream || document.hidden) return;
    stream = new EventSource("/ui/live?page=" + encodeURIComponent(main.dataset.live));
    stream.addEventListener("part", (e) => { retry = 0; show(true); replace(JSON.parse(e.data)); });
    stream.addEventListener("away", () => show(false));
    stream.addEventListener("gone", () => { stop(); location.reload(); });
    stream.addEventListener("leave", () => { stop(); location.reload(); });
    stream.onerror = () => {
      show(false);
      stop();
      // A stream that is refused tells no reason: the page itself does, once it is there.
      retry = Math.min(retry + 1, 5);
      setTimeout(() => fetch(location.href, { credentials: "same-origin", cache: "no-store", mode: "same-origin" })
        .then((r) => { if (r.redirected && new URL(r.url).pathname.endsWith("/sign-in")) location.reload(); else start(); })
        .catch(start), 1000 * retry);
    };
  };
  const stop = () => { stream?.close(); stream = null; };
  // A page that nobody sees holds no connection.
  document.addEventListener("visibilitychange", () => { if (document.hidden) stop(); else start(); });
  addEventListener("pagehide", stop);
  start();

  // Charts
  const charts = document.querySelector("[data-charts]");
  if (!charts || typeof uPlot === "undefined") return;
  const drawn = new Map();
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const bytes = (v) => { const u = ["B", "kB", "MB", "GB", "TB"]; let i = 0; while (Math.abs(v) >= 1000 && i < 4) { v /= 1024; i++; } return (v >= 100 || v === Math.round(v) ? v.toFixed(0) : v.toFixed(1)) + " " + u[i]; };
  const seconds = (v) => v === 0 ? "0 s" : v < 1 ? Math.round(v * 1000) + " ms" : v < 120 ? +v.toFixed(1) + " s" : Math.round(v / 60) + " min";
  const prints = { lag: seconds, behind: bytes, transactions: (v) => String(+v.toFixed(v < 10 ? 1 : 0)), bytes: bytes };
  const powers = Array.from({ length: 50 }, (_, i) => 2 ** i);
  const make = (box, id, data) => {
    const line = colour("--accent"), grid = { stroke: colour("--line"), width: 1 }, axis = { stroke: colour("--muted"), grid, ticks: grid, font: "11px " + colour("--sans") };
    const print = (v) => v == null ? "" : prints[id](v);
    const plot = new uPlot({
      width: box.clientWidth || 320, height: 160, legend: { show: true, live: true }, cursor: { drag: { x: false, y: false }, points: { size: 6 } },
      scales: { y: { range: (u, min, max) => [0, max > 0 ? max * 1.1 : 1] } },
      axes: [Object.assign({ space: 60, values: "{HH}:{mm}" }, axis), Object.assign({ size: 62, values: (u, list) => list.map(print) }, prints[id] === bytes ? { incrs: powers } : {}, axis)],
      tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "UTC"),
      series: [{ label: "UTC", value: (u, v) => v == null ? "" : uPlot.fmtDate("{HH}:{mm}:{ss}")(uPlot.tzDate(new Date(v * 1000), "UTC")) }, { label: "value", stroke: line, width: 1.75, fill: line + "22", spanGaps: false, points: { show: false }, value: (u, v, i, at) => at == null ? "" : v == null ? "unknown" : print(v) }],
    }, data, box);
    return plot;
  };
  const draw = async () => {
    if (document.hidden) return;
    let all;
    try {
      const r = await fetch(charts.dataset.charts, { credentials: "same-origin" });
      if (!r.ok) return;
      all = await r.json();
    } catch { return; }
    for (const box of charts.querySelectorAll("[data-chart]")) {
      const id = box.dataset.chart, data = [all.at, all.values[id]];
      box.hidden = !data[1] || !data[1].some((v) => v != null);
      if (box.hidden) continue;
      if (drawn.has(id)) drawn.get(id).setData(data); else { box.style.display = "block"; drawn.set(id, make(box, id, data)); }
    }
  };
  new ResizeObserver(() => { for (const [id, plot] of drawn) { const box = charts.querySelector(`[data-chart="${id}"]`); if (box.clientWidth) plot.setSize({ width: box.clientWidth, height: 160 }); } }).observe(charts);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { for (const plot of drawn.values()) plot.destroy(); drawn.clear(); draw(); });
  draw();
  setInterval(draw, 5000);
})();
