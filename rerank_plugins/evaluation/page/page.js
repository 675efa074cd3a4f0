// Text of queries and documents reaches the page through textContent only, so the browser never parses it as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const createElement = (tag, text, className) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
};

// A shadow shows that a table is wider than its frame, as on a phone. Over the first table a hint says so in words.
for (const frame of document.querySelectorAll(".wide")) {
  const updateScrollHint = () => {
    const hidden = frame.scrollWidth - frame.clientWidth;
    if (frame.id === "results-frame") byId("scroll-hint").hidden = hidden <= 1;
    frame.classList.toggle("more-to-the-right", hidden - frame.scrollLeft > 1);
  };
  new ResizeObserver(updateScrollHint).observe(frame);
  frame.addEventListener("scroll", updateScrollHint, { passive: true });
}

for (const [name, chart] of Object.entries(data.charts)) {
  vegaEmbed(byId(`chart-${name}`), chart, { renderer: "svg", actions: false, tooltip: { theme: "custom" } });
}

const STEP = 20;
let limit = STEP;

const rankedList = (title, side, before) => {
  const box = createElement("div");
  box.append(createElement("h3", title));
  if (!side.order.length) box.append(createElement("p", "nothing", "facts"));
  const list = createElement("ol");
  for (const number of side.order) {
    const [id, text] = data.documents[number];
    const item = createElement("li");
    const grade = before.grades[number];
    if (grade) {
      item.className = "relevant";
      item.append(createElement("span", grade > 1 ? `relevant (${grade}) ` : "relevant ", "mark"));
    }
    item.append(createElement("span", text || id));
    if (side !== before) {
      const was = before.order.indexOf(number) + 1;
      item.append(createElement("span", was ? ` (was ${was})` : " (was further down)", "was"));
    }
    list.append(item);
  }
  box.append(list);
  return box;
};

const fillDetails = (details, question, after) => {
  const position = (side) => side.relevant ?? "none";
  const label = byId("reranker").selectedOptions[0].textContent;
  const orders = createElement("div", undefined, "orders");
  orders.append(rankedList("Before: the retriever", question, question), rankedList(`After: ${label}`, after, question));
  details.append(
    createElement("p", `First relevant document: ${position(question)} before, ${position(after)} after.`, "facts"),
    orders,
  );
};

// A closed <details> is filled when it is first opened: a page of 500 questions stays small.
const queryDetails = ({ question, after, change }) => {
  const details = createElement("details", undefined, "query");
  const summary = createElement("summary");
  const difference = change > 0 ? `+${change.toFixed(3)}` : change.toFixed(3).replace("-", "−");
  summary.append(
    createElement("span", difference, `change ${change < 0 ? "loss" : change > 0 ? "gain" : ""}`),
    createElement("span", ` ${question.text}`),
  );
  details.append(summary);
  details.addEventListener("toggle", () => details.children.length > 1 || fillDetails(details, question, after), { once: true });
  return details;
};

const countQueries = (count) => (count === 1 ? "1 query" : `${count} queries`);

const showUnchanged = (unchanged) => {
  const fold = byId("unchanged");
  fold.hidden = !unchanged.length;
  fold.open = false;
  byId("unchanged-count").textContent = `${countQueries(unchanged.length)} without a change`;
  byId("unchanged-list").replaceChildren();
  fold.ontoggle = () => {
    if (fold.open && !byId("unchanged-list").children.length) byId("unchanged-list").replaceChildren(...unchanged.map(queryDetails));
  };
};

const show = () => {
  const selected = byId("reranker").value;
  const sign = Number(byId("order").value);
  const changes = data.questions
    .filter((question) => question.after[selected])
    .map((question) => {
      const after = question.after[selected];
      return { question, after, change: after.value - question.value };
    });
  const changed = changes.filter(({ change }) => change !== 0).sort((one, two) => sign * (one.change - two.change));
  const losses = changed.filter(({ change }) => change < 0).length;
  const part = data.questions.length < data.all ? ` (the ${data.questions.length} of ${data.all} with the largest losses)` : "";
  byId("change-counts").textContent =
    `${countQueries(changes.length)}${part}: ${losses} worse, ${changed.length - losses} better, ` +
    `${changes.length - changed.length} the same by ${data.main}.`;
  byId("changed-list").replaceChildren(...changed.slice(0, limit).map(queryDetails));
  byId("more").hidden = limit >= changed.length;
  showUnchanged(changes.filter(({ change }) => change === 0));
};

const restart = () => {
  limit = STEP;
  show();
};
byId("reranker").addEventListener("change", restart);
byId("order").addEventListener("change", restart);
byId("more").addEventListener("click", () => {
  limit += STEP;
  show();
});
if (byId("reranker").options.length) show();
