// Text of queries and documents reaches the page through textContent only: it is never read as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const make = (tag, text, name) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
};

for (const [name, chart] of Object.entries(data.charts)) {
  vegaEmbed(at(`chart-${name}`), chart, { renderer: "svg", actions: false, tooltip: { theme: "custom" } });
}

const STEP = 20;
let shown = STEP;

const listed = (title, side, before) => {
  const box = make("div");
  box.append(make("h3", title));
  if (!side.order.length) box.append(make("p", "nothing", "facts"));
  const list = make("ol");
  for (const number of side.order) {
    const [id, text] = data.documents[number];
    const item = make("li");
    const grade = before.grades[number];
    if (grade) {
      item.className = "relevant";
      item.append(make("span", grade > 1 ? `relevant (${grade}) ` : "relevant ", "mark"));
    }
    item.append(make("span", text || id));
    if (side !== before) {
      const was = before.order.indexOf(number) + 1;
      item.append(make("span", was ? ` (was ${was})` : " (was further down)", "was"));
    }
    list.append(item);
  }
  box.append(list);
  return box;
};

const fill = (details, question, after) => {
  const place = (side) => side.relevant ?? "none";
  const label = at("which").selectedOptions[0].textContent;
  const told = `First relevant document: ${place(question)} before, ${place(after)} after.`;
  const orders = make("div", undefined, "orders");
  orders.append(listed("Before: the retriever", question, question), listed(`After: ${label}`, after, question));
  details.append(make("p", told, "facts"), orders);
};

const show = () => {
  const which = at("which").value;
  const sign = Number(at("sort").value);
  const changes = data.questions
    .filter((question) => question.after[which])
    .map((question) => ({ question, after: question.after[which], change: question.after[which].value - question.value }))
    .sort((one, two) => sign * (one.change - two.change));
  const losses = changes.filter((each) => each.change < 0).length;
  const gains = changes.filter((each) => each.change > 0).length;
  const part = data.questions.length < data.all ? ` (the ${data.questions.length} of ${data.all} with the largest losses)` : "";
  at("count").textContent = `${changes.length} queries${part}: ${losses} worse, ${gains} better, ${changes.length - losses - gains} the same by ${data.main}.`;
  at("list").replaceChildren(
    ...changes.slice(0, shown).map(({ question, after, change }) => {
      const details = make("details");
      const summary = make("summary");
      const told = change > 0 ? `+${change.toFixed(3)}` : change.toFixed(3).replace("-", "−");
      summary.append(make("span", told, `change ${change < 0 ? "loss" : change > 0 ? "gain" : ""}`), make("span", ` ${question.text}`));
      details.append(summary);
      details.addEventListener("toggle", () => details.children.length > 1 || fill(details, question, after), { once: true });
      return details;
    }),
  );
  at("more").hidden = shown >= changes.length;
};

const again = () => {
  shown = STEP;
  show();
};
at("which").addEventListener("change", again);
at("sort").addEventListener("change", again);
at("more").addEventListener("click", () => {
  shown += STEP;
  show();
});
if (at("which").options.length) show();
