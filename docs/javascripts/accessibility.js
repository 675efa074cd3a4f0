// What Material for MkDocs leaves out and axe asks for: names of landmarks and dialogs, and the keyboard in wide tables.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelector(".md-search[role=dialog]")?.setAttribute("aria-label", "Search");

  const name = (root) => {
    // The buttons at code blocks are made after the page has loaded.
    root.querySelectorAll("nav.md-code__nav:not([aria-label])").forEach((nav) => {
      const code = nav.closest("pre, .highlight")?.querySelector("code");
      nav.setAttribute("aria-label", `Code block ${code?.id.replace(/\D+/g, "") || nav.parentElement.id}`);
    });
    root.querySelectorAll(".md-typeset__scrollwrap").forEach((frame) => {
      frame.tabIndex = 0;
    });
  };
  name(document);
  new MutationObserver(() => name(document)).observe(document.body, { childList: true, subtree: true });
});
