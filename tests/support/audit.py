"""What a page in a browser lacks for those who see or hear it otherwise: text that is too faint, what has no name."""

from playwright.sync_api import Page

FAINT = """
() => {
  const parse = color => { const [r, g, b, a = 1] = color.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const linear = level => (level /= 255) <= 0.03928 ? level / 12.92 : ((level + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = element => {
    const colors = [];
    for (; element; element = element.parentElement) colors.push(parse(getComputedStyle(element).backgroundColor));
    return colors.reduceRight((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const faint = [];
  const check = (element, color, text) => {
    const below = ground(element), pair = [over(parse(color), below), below].map(luminance).sort((a, b) => b - a);
    const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (contrast < 4.5) faint.push(`${text.trim().slice(0, 40)}: ${contrast.toFixed(2)}`);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data, element = walker.currentNode.parentElement;
    const seen = element.checkVisibility({checkOpacity: true, checkVisibilityCSS: true});
    if (!text.trim() || !seen || element.closest('script, style, button:disabled')) continue;
    check(element, getComputedStyle(element).color, text);
  }
  for (const box of document.querySelectorAll('input:not([type=range], [type=file]), textarea')) {
    if (!box.checkVisibility()) continue;
    check(box, getComputedStyle(box).color, box.value || 'what is typed');
    if (box.placeholder) check(box, getComputedStyle(box, '::placeholder').color, box.placeholder);
  }
  return faint;
}
"""
WITHOUT_ALT = """
() => [...document.querySelectorAll('img')].filter(picture => picture.checkVisibility() && !picture.alt.trim())
  .map(picture => picture.closest('.block')?.id ?? '')
"""
CONTROLS = {"button", "textbox", "slider", "spinbutton", "tab", "link", "combobox", "checkbox", "progressbar"}


def faint(page: Page) -> list[str]:
    """Texts with a contrast below 4.5 to what lies behind them, as WCAG 2 reckons it and asks for (AA)."""
    return page.evaluate(FAINT)


def nameless(page: Page) -> list[str]:
    """Roles of controls that a screen reader has no name for, and where pictures have no alternative text."""
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    return [role for role, name in named if role in CONTROLS and not name.strip()] + page.evaluate(WITHOUT_ALT)
