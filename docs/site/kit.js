// What the theme leaves out for keyboards and screen readers: boxes that scroll can be reached, icons have names.
document.addEventListener("DOMContentLoaded", () => {
  for (const box of document.querySelectorAll("pre, .bd-article table, mjx-container[display=true], .bd-article div.output")) {
    box.tabIndex = 0;
  }
  for (const field of document.querySelectorAll("input:not([aria-label]), button:not([aria-label])")) {
    field.setAttribute("aria-label", field.placeholder || field.title || field.dataset.bsOriginalTitle || field.textContent.trim() || "toggle");
  }
});
