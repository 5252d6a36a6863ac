// What the page does without asking the server: events are sent one at a time, figures are put on light or dark paper, the selection is marked.
(function () {
  "use strict";
  const nothing = () => window.dash_clientside.no_update;
  const set = (id, props) => window.dash_clientside.set_props(id, props);
  let session = null, count = 0;

  // One at a time: an event is about the session that answers the one before, and Dash drops the answer to what is asked again before it comes.
  const queues = { event: [], begin: [], wanted: [] }, waiting = {}, asking = {};
  function inTurn(name, question) {
    queues[name].push(question);
    next(name);
  }
  function next(name) {
    if (waiting[name] || !queues[name].length || !session) return;
    wait(name, true);
    asking[name] = queues[name].shift();
    set(name, { data: { ...asking[name], count: ++count } });
  }
  function wait(name, still) {
    waiting[name] = still;
    if (name === "event") document.body.dataset.waiting = still ? "yes" : "";
  }
  function answered(name) {
    wait(name, false);
    delete asking[name];
    setTimeout(() => next(name), 0);
  }
  // The last choice wins: what a field was set to is what was last asked for, answered or not, and until then it is not filled.
  const askedFor = (is) => [asking.event, ...queues.event].findLast((one) => one && is(one));
  const choice = (name) => askedFor((one) => one.do === "set" && one.name === name);
  const aim = (name) => { const last = choice(name); return last ? last.value : session.state[name]; };
  function amountOf(number) {
    const one = session.state.changes[number], last = askedFor((other) => other.do === "dose" && butAmount(other.change) === butAmount(one));
    return last ? last.amount : one.amount;
  }
  function send(event) {
    const queue = queues.event, last = queue[queue.length - 1];
    if (event.do === "key" && queue.length > 20) return;
    if (last && event.do === "dose" && last.do === "dose" && butAmount(last.change) === butAmount(event.change)) queue.pop();
    inTurn("event", event);
  }

  // A request that fails has no answer, and Dash keeps silent about it: the page says so, shows nothing old in its place, and can go on.
  const fetched = window.fetch.bind(window);
  window.fetch = (address, options) => {
    const answer = fetched(address, options);
    if (String(address).includes("_dash-update-component")) {
      answer.then(async (found) => { if (!found.ok) failed(options.body, await reason(found)); },
        () => failed(options.body, "The server did not answer. Does `interp explore` still run? Then try again."));
    }
    return answer;
  };
  async function reason(answer) {
    const plain = (answer.headers.get("Content-Type") || "").startsWith("text/plain");
    return plain ? await answer.clone().text() : "The server could not do that (" + answer.status + "); the terminal that runs `interp explore` says why.";
  }
  function failed(body, why) {
    say(why);
    for (const name of JSON.parse(body).changedPropIds.map((one) => one.split(".")[0])) {
      const view = name.replace("need-", "");
      if (name in queues) {
        queues[name].length = 0;  // what came after it was meant for its answer
        answered(name);
        for (const button of document.querySelectorAll("[data-pressed]")) delete button.dataset.pressed;
      } else if (name === "need-jobs") {
        poll(2000);
      } else if (name === "live-ask") {
        running = false;
        set("live-told", { data: { ...written, ask: texts, problem: why } });
      } else if (name !== view) {
        delete remembered[view];
        set((document.getElementById("figure-" + view) ? "raw-" : "told-") + view, { data: { problem: why } });
      }
    }
  }
  const say = (said) => put("message", ...(said ? [said] : []));

  const value = (id) => { const field = document.getElementById(id); return field ? field.value : ""; };
  const how = () => (document.querySelector("#how input:checked") || {}).value || "select";
  const dose = () => Math.round(1e4 * 10 ** doseAt) / 1e4;
  let doseAt = -1;
  const matches = (part) => part && Object.keys(part).length > 0 && Object.entries(part).every(([name, one]) => session.state[name] === one);

  // The selection is a frame above a figure, which need not be drawn again for it.
  function mark(name) {
    const raw = shown[name] && shown[name].raw, plot = plotOf(name), place = document.getElementById("marks-" + name);
    if (!place) return;
    const frames = [];
    const [row, column, curve] = raw ? [raw.cells.rows, raw.cells.columns, raw.cells.curves].map((parts) => parts.findIndex(matches)) : [-1, -1, -1];
    if (plot && plot._fullLayout && (row >= 0 || column >= 0 || curve >= 0)) {
      const whole = curve < 0 ? [] : [[plot._fullData[curve].xaxis, plot._fullData[curve].yaxis]];
      for (const [x, y] of [...raw.cells.axes, ...whole]) {
        const across = plot._fullLayout[x.replace("x", "xaxis")], up = plot._fullLayout[y.replace("y", "yaxis")];
        if (!across || !up) continue;
        const ends = (axis, at) => at < 0 ? [0, axis._length] : [axis.d2p(at - 0.5), axis.d2p(at + 0.5)].sort((a, b) => a - b);
        const [left, right] = ends(across, column), [top, bottom] = ends(up, row < 0 ? row : row + raw.cells.first);
        const frame = document.createElement("i");
        Object.assign(frame.style, {
          left: across._offset + left + "px", width: right - left + "px", top: up._offset + top + "px", height: bottom - top + "px",
        });
        frames.push(frame);
      }
    }
    place.replaceChildren(...frames);
    if (frames.length) reach(name, raw);
  }
  const markAll = () => Object.keys(shown).forEach(mark);
  addEventListener("resize", () => setTimeout(() => Object.keys(shown).forEach((name) => fit(name).then(() => mark(name))), 400));

  // Words in cells are cut to the width of a cell; the whole of them is shown on hover.
  const pen = document.createElement("canvas").getContext("2d");
  const read = (markup) => new DOMParser().parseFromString(markup, "text/html").body.textContent;
  function cut(markup, width) {
    const signs = (markup.match(/&[^;]+;|./gsu) || []).map((one) => [one, read(one) || one]);
    const wide = (some, end) => pen.measureText(some.map(([, sign]) => sign).join("") + end).width > width;
    if (!wide(signs, "")) return markup;
    while (signs.length && wide(signs, "…")) signs.pop();
    return signs.map(([one]) => one).join("") + "…";
  }
  async function fit(name) {
    const plot = plotOf(name), raw = shown[name] && shown[name].raw;
    if (!raw || !plot || !plot._fullData) return;
    for (const [at, trace] of raw.figure.data.entries()) {
      if (trace.type !== "heatmap" || !trace.texttemplate) continue;
      const full = plot._fullData[at], axis = plot._fullLayout[full.xaxis.replace("x", "xaxis")];
      pen.font = full.textfont.size + "px " + full.textfont.family;
      const width = axis._length / trace.text[0].length - 4;
      await window.Plotly.restyle(plot, { text: [trace.text.map((row) => row.map((one) => cut(one, width)))] }, [at]);
    }
  }

  const plotOf = (name) => document.getElementById("figure-" + name);
  const CONFIG = { displayModeBar: false, displaylogo: false, responsive: true, scrollZoom: false, doubleClick: false };
  function listen(name) {
    const plot = plotOf(name);
    if (!plot || !plot.on || plot.dataset.listens) return;
    plot.dataset.listens = "yes";
    plot.on("plotly_click", (click) => {
      const point = click.points[0], cells = shown[name] && shown[name].raw.cells;
      if (!cells || point.data.type !== "heatmap") return;
      const row = cells.rows[Math.round(point.y) - cells.first], column = cells.columns[Math.round(point.x)];
      const part = { ...row, ...column, ...cells.curves[point.curveNumber] };
      if (Object.keys(part).length) send({ do: "cell", how: how(), amount: dose(), ...part });
    });
  }

  const shown = {};
  const flat = (figure) => JSON.parse(JSON.stringify(figure));
  function laid(raw, dark) {
    let figure = flat(raw.figure);
    figure.layout.template = figure.layout.template || { layout: {} };
    if (dark) figure = window.inDark(figure, getComputedStyle(document.body).getPropertyValue("--panel").trim());
    const layout = figure.layout, top = (layout.margin && layout.margin.t) || 56, kept = Math.min(top, 38);
    delete layout.width; delete layout.height;
    Object.assign(layout, { autosize: true, title: { text: "" }, margin: { ...layout.margin, t: kept } });
    return { figure, less: top - kept };
  }

  function drawn(raw, scheme, id) {
    const name = id.replace("figure-", ""), before = shown[name] || {}, dark = scheme === "dark";
    const same = [nothing(), nothing(), nothing(), nothing(), nothing()];
    if (!raw || raw.problem !== undefined) {
      const said = raw ? raw.problem : "";
      if (!before.raw && before.problem === said) return same;
      shown[name] = { problem: said };
      mark(name);
      return [said, true, nothing(), "", true];
    }
    if (!scheme || (before.raw === raw && before.dark === dark)) return same;
    shown[name] = { raw, dark };
    const { figure, less } = laid(raw, dark);
    const draw = () => {
      if (shown[name].raw !== raw || shown[name].dark !== dark) return;
      window.Plotly.react(plotOf(name), figure.data, figure.layout, CONFIG).then(() => fit(name)).then(() => { listen(name); mark(name); });
    };
    if (LATER.includes(name)) whenIdle(draw);
    else setTimeout(draw, 0);  // once its place is on the page
    return [raw.said, false, { "--w": raw.width + "px", "--h": raw.height - less + "px" }, raw.words, false];
  }
  // On a narrow page a column that is selected anew is brought into view; at first the names of the rows are.
  const reached = {};
  function reach(name, raw) {
    const wide = document.getElementById("wide-" + name), column = raw.cells.columns.findIndex(matches);
    const axis = plotOf(name) && plotOf(name)._fullLayout && plotOf(name)._fullLayout[raw.cells.axes.length ? raw.cells.axes[0][0].replace("x", "xaxis") : ""];
    if (!wide || !axis || column < 0 || reached[name] === column) return;
    const first = reached[name] === undefined;
    reached[name] = column;
    if (first || wide.scrollWidth <= wide.clientWidth) return;
    const at = axis._offset + axis.d2p(column);
    if (at < wide.scrollLeft + 20 || at > wide.scrollLeft + wide.clientWidth - 20) wide.scrollLeft = at - wide.clientWidth / 2;
  }

  // What nobody asked for first waits while an event is answered, so that it does not hold up the next one.
  function whenIdle(act) {
    requestIdleCallback(() => { if (waiting.event) setTimeout(() => whenIdle(act), 30); else act(); }, { timeout: 300 });
  }
  const remembered = {}, later = {};
  const LATER = ["cone", "gain"];  // after the numbers, which are there sooner
  function needs(sent) {
    if (session && sent.state.changes.length > session.state.changes.length) chosen = null;
    session = sent;
    answered("event");
    next("begin");
    next("wanted");
    history.replaceState(null, "", sent.address || location.pathname);
    fill(sent);
    show_past(sent.runs);
    requestAnimationFrame(() => { markAll(); markTokens(); });
    const at = sent.state, base = at.corrupt ? at.changed : "clean", text = at.shown === "corrupt" && at.corrupt ? at.corrupt : at.clean;
    const changedText = base === "clean" ? at.clean : at.corrupt, pair = [at.model, at.clean, at.corrupt, at.answer, at.wrong];
    const spread = at.changes.filter((one) => one.kind === "inject" && one.on).pop();
    const open = document.getElementById("open-attribution");
    const told = {
      texts: [...pair, base], runs: [...pair, base, at.changes],
      look: [at.model, text, at.layer, at.head, at.position], live: [at.model, at.clean, at.corrupt, at.temperature, at.seed],
      lens: [at.model, text, at.lens, sent.length > 16 ? at.position : 0], patching: [...pair, base, at.site],
      head: [at.model, text, at.layer, at.head], heads: [at.model, text, at.layer],
      cone: spread ? [at.model, changedText, spread] : null, gain: spread ? [at.model, changedText, spread] : null,
      attribution: open && open.open ? pair : null, circuit: pair,
    };
    return window.dash_clientside.callback_context.outputs_list.map(({ id }) => {
      if (id === "now") return sent.state;
      const name = id.replace("need-", ""), key = JSON.stringify(told[name]);
      if (remembered[name] === key) return nothing();
      remembered[name] = key;
      const need = told[name] === null ? null : { of: key };
      if (!LATER.includes(name)) return need;
      later[name] = need;
      return nothing();
    });
  }

  const FIELDS = ["model", "clean", "corrupt", "answer", "wrong", "changed", "site", "shown", "lens", "temperature"];
  const WRITTEN = ["clean", "corrupt", "answer", "wrong"], LEFT = 600;
  const writing = (name) => WRITTEN.includes(name) && document.activeElement && document.activeElement.id === name;
  // Fields show the state, but for the one that is being written in; what is as it was is not set again.
  const filledWith = {};
  function fill(sent) {
    const at = sent.state;
    const told = (name, now) => { if (filledWith[name] !== now) set(name, { value: filledWith[name] = now }); };
    say(sent.message);
    for (const name of FIELDS) if (!choice(name) && (!writing(name) || value(name) === at[name])) told(name, at[name]);
    const dosing = dosed();
    sayDose();
    if (dosing >= 0 && onSlider(amountOf(dosing))) told("dose", Math.log10(amountOf(dosing)));
    put("selection", "Layer " + at.layer + ", position " + at.position + ", head " + at.head +
      ". Arrow keys move it on tokens and figures, with Shift the head; Escape goes back to the last token, in layer 0 and head 0.");
  }

  // A field that is left, and holds what was refused, shows the state again; what was written last has been sent by then.
  document.addEventListener("focusout", ({ target }) => {
    if (WRITTEN.includes(target.id)) setTimeout(() => {
      if (writing(target.id) || waiting.event || !session || value(target.id) === session.state[target.id]) return;
      set(target.id, { value: filledWith[target.id] = session.state[target.id] });
    }, LEFT);
  });

  // The dose is that of one change: of the one that was chosen in the list, else of the last.
  let chosen = null;
  function onSlider(amount) {
    const [least, most] = ["aria-valuemin", "aria-valuemax"].map((one) => Number(document.querySelector("#dose [role=slider]").getAttribute(one)));
    return amount > 0 && Math.log10(amount) > least - 1e-3 && Math.log10(amount) < most + 1e-3;
  }
  const spreads = (one) => Boolean(one) && ["inject", "steer"].includes(one.kind);
  const butAmount = (one) => JSON.stringify({ ...one, amount: 0, on: true });
  function placed(known) {
    const all = session.state.changes;
    return all[known.number] && butAmount(all[known.number]) === known.as ? known.number : all.findIndex((one) => butAmount(one) === known.as);
  }
  function dosed() {
    const at = chosen ? placed(chosen) : -1;
    return at < 0 ? session.state.changes.findLastIndex(spreads) : at;
  }
  function choose(row) {
    const as = butAmount(row.change), number = placed({ number: row.number, as });
    if (!spreads(session.state.changes[number])) return;
    chosen = { number, as };
    if (onSlider(amountOf(number))) set("dose", { value: filledWith.dose = Math.log10(amountOf(number)) });
    sayDose();
  }
  function sayDose() {
    const number = dosed(), one = session.state.changes[number];
    const what = one && (one.kind === "inject" ? "disturbance" : "steering") + " of layer " + one.layer + (one.position === null ? ", everywhere" : " at " + one.position);
    put("dose-label", one ? "Length of the " + what + ", over that of the stream" : "Length of the next disturbance or steering, over that of the stream");
    const off = one && !onSlider(one.amount);
    put("dose-said", "Dose " + (one ? one.amount : dose()) + (off ? ", which is not on the slider; moving it sets another" : ""));
    for (const button of document.querySelectorAll("[data-dose]")) button.setAttribute("aria-pressed", String(Number(button.dataset.dose) === number));
  }

  function changed(...given) {
    const context = window.dash_clientside.callback_context, sent = given[given.length - 1];
    if (!sent) return nothing();
    for (const { prop_id: from, value: now } of context.triggered) {
      const name = from.split(".")[0];
      filledWith[name] = now;
      if (name === "dose") {
        doseAt = now;
        const number = dosed(), change = session.state.changes[number], amount = change && amountOf(number);
        if (!change) sayDose();
        else if (!onSlider(amount) || Math.abs(Math.log10(amount) - now) > 1e-3) send({ do: "dose", number, change, amount: dose() });
      } else if (name === "task") {
        if (now) send({ do: "example", task: now, seed: examples });
      } else if ((now || "") !== aim(name) && !(now === null && !aim(name)) && now !== aim(name)) {
        send({ do: "set", name, value: now });
      }
    }
    return nothing();
  }
  let examples = 0;

  // Rows of the page, each text put in as text.
  function made(tag, named, ...inner) {
    const element = document.createElement(tag);
    for (const [name, one] of Object.entries(named || {})) element.setAttribute(name, one);
    element.append(...inner);
    return element;
  }
  const put = (id, ...inner) => { const place = document.getElementById(id); if (place) place.replaceChildren(...inner); };
  const soft = (said) => made("p", { class: "soft" }, said);
  function chip(one, run) {
    const token = made("button", { class: "token" + (one.differs ? " differs" : ""), title: one.title, "data-position": one.position }, one.text);
    if (run) Object.assign(token.dataset, { run });
    token.draggable = run === "other";
    if (one.share !== undefined) { token.dataset.share = one.share.toFixed(6); token.style.setProperty("--share", one.dark); }
    return token;
  }
  function show_texts(told) {
    if (!told) return nothing();
    put("tokens", ...(told.problem ? [soft(told.problem)] : told.rows.map((row) => made("div", { class: "tokens", role: "group", "aria-label": "Tokens of the " + row.which + " text" },
      made("b", {}, row.label), made("span", { class: "row", "data-run": row.run }, ...row.tokens.map((one) => chip(one, row.run)))))));
    markTokens();
    return nothing();
  }
  function show_look(told) {
    if (!told) return nothing();
    put("attended-said", told.said || "");
    put("attended", ...(told.problem ? [soft(told.problem)] : told.tokens.map((one) => chip(one))));
    markTokens();
    return nothing();
  }
  let past = null, rowed = [];  // changes by their rows, which may be those of a moment ago
  function show_past(runs) {
    const key = JSON.stringify(runs);
    if (past === key) return;
    past = key;
    const listed = runs.map((one) => made("button", { class: "run", "data-do": "back", "data-number": one.number }, one.called));
    put("runs", ...(listed.length ? listed : [soft("Runs before this one will stand here.")]));
  }
  function show_runs(told) {
    if (!told) return nothing();
    whenIdle(() => {
      for (const name of Object.keys(later)) {
        set("need-" + name, { data: later[name] });
        delete later[name];
      }
    });
    if (told.problem) {
      put("predictions", soft(told.problem));
      put("changes");
      return nothing();
    }
    put("predictions", ...told.runs.map((run) => made("table", { "data-run": run.run },
      made("caption", {}, run.run, made("span", { class: "soft" }, run.metric)),
      made("tbody", {}, ...run.tokens.map(([token, p, wide]) => made("tr", {}, made("td", { class: "mono" }, token), made("td", { class: "number" }, p),
        made("td", { class: "bar", "aria-hidden": "true" }, made("i", { style: "width: " + wide }))))))));
    if (!told.changes.length) {
      put("changes", soft("Nothing is changed. Select a cell and press a button above, or have a click do it."));
      return nothing();
    }
    rowed = told.changes.map((one, number) => ({ number, change: one.change }));
    const numbers = (found) => found.map((one) => made("td", { class: "number" }, one));
    const rows = told.changes.map((one, number) => made("tr", one.on ? {} : { class: "off" },
      made("td", {}, made("button", { class: "switch", role: "switch", "aria-checked": one.on, "aria-label": one.named, "data-do": "switch", "data-number": number }, one.on ? "on" : "off")),
      made("td", {}, one.dosed ? made("button", { class: "dosed", title: "Have the dose act on this", "aria-pressed": "false", "data-dose": number }, one.named) : one.named, ...(one.problem ? [made("p", { class: "problem" }, "Left out: " + one.problem)] : [])), ...numbers(one.numbers),
      made("td", {}, made("button", { class: "remove", title: "Remove", "aria-label": "Remove: " + one.named, "data-do": "remove", "data-number": number }, "×"))));
    if (told.together) rows.push(made("tr", { class: "together" }, made("td"), made("th", { scope: "row" }, "together"), ...numbers(told.together), made("td")));
    const heads = ["", "change", "moved", "share", "KL", ""].map((one) => made("th", { scope: "col" }, one));
    const focus = document.activeElement && document.activeElement.closest("#changes") ? document.activeElement.getAttribute("aria-label") : null;
    put("changes", made("div", { class: "wide" }, made("table", {}, made("thead", {}, made("tr", {}, ...heads)), made("tbody", {}, ...rows))), soft(told.read));
    sayDose();
    if (focus) [...document.querySelectorAll("#changes button")].find((one) => one.getAttribute("aria-label") === focus)?.focus();
    return nothing();
  }
  function show_written(texts) {
    put("written", ...Object.entries(texts || {}).map(([which, text]) => made("div", { class: "tokens", "data-text": which }, made("b", {}, which),
      made("span", { class: "row" }, ...text.map((token, at) => made("span", { class: "token" + (texts.clean[at] === texts.corrupt[at] ? "" : " differs") }, token))))));
  }

  function markTokens() {
    if (!session) return;
    for (const token of document.querySelectorAll(".keys [data-position]")) {
      const own = Number(token.dataset.position) === session.state.position;
      token.classList.toggle("chosen", own);
      token.setAttribute("aria-pressed", String(own));
      token.tabIndex = own ? 0 : -1;
    }
  }

  // Work in the background: the tab keeps the list, through a reload too.
  const worksAt = {};
  let polled = 0;
  function poll(after) {
    clearTimeout(polled);
    polled = setTimeout(() => session ? set("need-jobs", { data: { count: ++count } }) : poll(after), after);
  }
  function worked(begun, told, jobs) {
    const from = window.dash_clientside.callback_context.triggered.map((one) => one.prop_id.split(".")[0]);
    let listed = jobs || [];
    if (from.includes("begun")) {
      answered("begin");
      say(begun.problem);
      if (!begun.problem) listed = [...listed, begun];
    }
    if (from.includes("told-jobs") && told.jobs) {
      const ended = told.jobs.filter((one) => one.ended);
      if (ended.length) say(ended.map((one) => one.ended).join(" "));
      for (const one of told.jobs) worksAt[one.key] = one;
      listed = listed.filter((one) => !ended.some((other) => other.key === one.key));
    }
    return [...listed];
  }
  function watched(jobs) {
    const lines = [...document.querySelectorAll("#work .job")];  // that stay where they are, so that a click on one is not lost
    put("work", ...(jobs || []).map(({ key, kind }) => {
      const line = lines.find((one) => one.dataset.job === key) || made("div", { class: "job", "data-job": key }, made("span", { class: "job-said" }),
        made("progress", { "aria-label": "Progress", max: 1, value: 0 }), made("button", { class: "button job-stop", "data-stop": key }, "Stop"));
      const at = worksAt[key] || { said: kind, share: 0 };
      line.querySelector(".job-said").textContent = at.said;
      line.querySelector("progress").value = at.share;
      return line;
    }));
    if (jobs && jobs.length) poll(400);
    return nothing();
  }
  function saved(told) {
    answered("wanted");
    say(told.problem);
    return nothing();
  }

  let running = false, asked = 0, texts = "", written = {};
  function lived(told, need, go, seed, sent) {
    const from = window.dash_clientside.callback_context.triggered.map((one) => one.prop_id.split(".")[0]);
    if (from.includes("live-seed")) send({ do: "set", name: "seed", value: (aim("seed") + 1) % 2147483648 });
    if (from.includes("live-go")) {
      running = !running;
      if (running) ask(told && told.ask === texts ? told.steps : 0);
    }
    if (from.includes("need-live") && need && need.of !== texts) {
      texts = need.of;
      set("live-ask", { data: { steps: running ? 1 : 0, ask: texts, count: ++asked } });
    }
    if (from.includes("live-told") && told) written = told;
    const current = told && told.ask === texts;
    if (from.includes("live-told") && current) {
      if (told.problem || told.steps >= told.most) running = false;
      else if (running) setTimeout(() => running && ask(told.steps), 40);
    }
    if (from.includes("live-told")) show_written(current ? told.texts : {});
    const steps = current ? told.steps : 0;
    const whole = steps > 0 && steps >= told.most;
    const said = current && told.problem ? told.problem
      : "Seed " + (sent ? sent.state.seed : 0) + (steps ? ", " + steps + " tokens" : "") + (whole ? ": as long as they can be here" : "");
    return [said, running ? "Stop" : steps ? "Go on" : "Start", whole];
  }
  const ask = (steps) => set("live-ask", { data: { steps: steps + 4, ask: texts, count: ++asked } });

  window.dash_clientside = Object.assign({}, window.dash_clientside, { explorer: { needs, drawn, changed, worked, watched, saved, lived, show_texts, show_runs, show_look } });

  // Clicks, keys and drags on what the server has made.
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do], [data-save], [data-begin], [data-stop], [data-dose], .keys [data-position], #another");
    if (!button) return;
    if (button.id === "another") {
      const task = value("task");
      if (task) send({ do: "example", task, seed: ++examples });
    } else if (button.dataset.begin) {
      inTurn("begin", { kind: button.dataset.begin });
    } else if (button.dataset.stop) {
      const line = button.closest(".job").querySelector(".job-said");
      line.textContent = line.textContent.split(/[,:]/)[0] + ": stopping";
      set("need-jobs", { data: { stop: button.dataset.stop, count: ++count } });
    } else if (button.dataset.dose) {
      choose(rowed[Number(button.dataset.dose)]);
    } else if (button.dataset.save) {
      save(button.dataset.view, button.dataset.save);
    } else if (button.dataset.do) {
      const event = { do: button.dataset.do };
      if (event.do === "back") event.number = Number(button.dataset.number);
      else if (button.dataset.number) Object.assign(event, rowed[Number(button.dataset.number)]);
      if (event.do === "remove") {
        if (button.dataset.pressed) return;  // a double click is about one change, and its row stays until the answer
        button.dataset.pressed = "yes";
      }
      if (["inject", "steer"].includes(event.do)) event.amount = dose();
      if (event.do === "steer") Object.assign(event, { toward: value("toward"), away: value("away") });
      send(event);
    } else {
      send({ do: "cell", how: button.closest("#tokens") ? how() : "select", amount: dose(), position: Number(button.dataset.position) });
    }
  });
  document.addEventListener("keydown", (event) => {
    const keys = event.target.closest && event.target.closest(".keys");
    if (!keys || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" || event.key.startsWith("Arrow")) {
      event.preventDefault();
      send({ do: "key", key: event.key, shift: event.shiftKey });
    } else if (event.key === "Enter" && !event.target.dataset.position) {
      send({ do: how() === "select" ? "select" : how(), amount: dose() });
    }
  });
  // A token keeps the focus where the selection goes.
  new MutationObserver(() => {
    const at = document.activeElement;
    if (at && at.dataset && at.dataset.position && !at.classList.contains("chosen")) {
      const own = at.closest(".row, #attended"), now = own && own.querySelector(".chosen");
      if (now) now.focus();
    }
  }).observe(document.documentElement, { subtree: true, attributes: true, attributeFilter: ["class"] });
  const DRAGGED = "application/x-explore-position";
  document.addEventListener("dragstart", (event) => {
    const token = event.target.closest && event.target.closest("[data-run='other'][data-position]");
    if (token) event.dataTransfer.setData(DRAGGED, token.dataset.position);
  });
  // Files and selected words can be dropped too, and mean nothing here.
  const target = (event) => event.dataTransfer.types.includes(DRAGGED) && event.target.closest && event.target.closest(".row[data-run='changed']");
  document.addEventListener("dragover", (event) => { if (target(event)) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    if (!target(event)) return;
    event.preventDefault();
    const onto = event.target.closest("[data-position]");
    send({ do: "drop", position: Number(event.dataTransfer.getData(DRAGGED)), ...(onto ? { onto: Number(onto.dataset.position) } : {}) });
  });
  document.addEventListener("toggle", (event) => {
    if (event.target.id !== "open-attribution" || !session || !event.target.open) return;
    const at = session.state, key = JSON.stringify([at.model, at.clean, at.corrupt, at.answer, at.wrong]);
    if (remembered.attribution !== key) set("need-attribution", { data: { of: (remembered.attribution = key) } });
  }, true);

  function save(view, kind) {
    const one = shown[view];
    if (!one || !one.raw) return;
    if (kind === "data") {
      inTurn("wanted", { view });
      return;
    }
    const { data, layout } = flat(one.raw.figure);
    const size = { width: layout.width || 700, height: layout.height || 450 };
    window.Plotly.downloadImage({ data, layout }, { format: kind, filename: view, scale: kind === "png" ? 2 : 1, ...size });
  }

  const scheme = () => document.documentElement.getAttribute("data-mantine-color-scheme") === "dark" ? "dark" : "light";
  let told = "";
  function tell() {
    if (!window.dash_clientside.set_props || !document.getElementById("views")) return;
    if (scheme() !== told) set("scheme", { data: (told = scheme()) });
  }
  new MutationObserver(tell).observe(document.documentElement, { attributes: true, attributeFilter: ["data-mantine-color-scheme"] });
  const begun = setInterval(() => { tell(); if (told) clearInterval(begun); }, 100);
})();
