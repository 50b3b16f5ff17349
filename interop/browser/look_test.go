package browser

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/chromedp"
)

// look is what somebody sees who doesn't see, and on the narrowest phone; then
// it takes the picture. It is for pages of the portal.
func (b *tab) look(name string) {
	b.Helper()
	for _, problem := range read[[]string](b, lookScript) {
		b.Errorf("%s: %s", name, problem)
	}
	b.lookAtTree(name)
	light := read[float64](b, `getComputedStyle(document.body).backgroundColor.match(/\d+/g).slice(0, 3).reduce((a, c) => a + Number(c) / 765, 0)`)
	if light > .5 != (b.screen.scheme == "light") {
		b.Errorf("%s: the ground has lightness %.2f, which is not %s", name, light, b.screen.scheme)
	}
	for _, width := range []int64{320, b.screen.width} {
		b.resize(width)
		b.await("the page's new width", `innerWidth === `+strconv.FormatInt(width, 10)+` || document.scrollingElement.scrollWidth > `+strconv.FormatInt(width, 10))
		if got := read[int64](b, `document.scrollingElement.scrollWidth`); got > width {
			b.Errorf("%s: at %d pixels the page is %d wide: %s", name, width, got, read[string](b, widestScript))
		}
	}
	b.shoot(name)
}

// lookScript lists what is wrong in the document.
const lookScript = `(() => {
	const wrong = [], all = selector => [...document.querySelectorAll(selector)];
	if (document.documentElement.lang !== "en") wrong.push("no language");
	if (!/^\S.* – caddy-bearer$/.test(document.title)) wrong.push("the title is " + document.title);
	let level = 0;
	for (const h of all("h1, h2, h3, h4, h5, h6")) {
		const next = Number(h.tagName[1]);
		if (next > level + 1) wrong.push("a heading of level " + next + " follows one of level " + level + ": " + h.innerText);
		level = next;
	}
	const ids = all("[id]").map(e => e.id);
	for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) wrong.push("the id " + id + " is there twice");
	for (const e of all("[aria-labelledby]"))
		if (!document.getElementById(e.getAttribute("aria-labelledby"))) wrong.push("a label is missing: " + e.outerHTML);
	for (const e of all("button, a.button, input:not([type=hidden])")) {
		const box = e.getBoundingClientRect();
		if (box.height < 44 || box.width < 44) wrong.push("too small for a finger: " + e.outerHTML);
	}
	if (all("script, style, [style], iframe, img, object").length) wrong.push("the page has what it must not have");
	return wrong;
})()`

// widestScript names what sticks out.
const widestScript = `[...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth).map(e => e.outerHTML.slice(0, 120)).join("\n")`

// lookAtTree checks what assistive technology is told.
func (b *tab) lookAtTree(name string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	tree, err := chromedp.Call(ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	if err != nil {
		b.Fatalf("reading the accessibility tree: %v", err)
	}
	count, names := map[string]int{}, map[string]bool{}
	for _, node := range tree.Nodes {
		role, label := axText(node.Role), axText(node.Name)
		if node.Ignored {
			continue
		}
		count[role]++
		switch role {
		case "heading", "link", "textbox", "searchbox", "article", "region", "search", "RootWebArea":
			if label == "" {
				b.Errorf("%s: a %s has no name", name, role)
			}
		case "button":
			if label == "" || names[label] {
				b.Errorf("%s: a button has no name of its own: %q", name, label)
			}
			names[label] = true
		}
	}
	for _, role := range []string{"banner", "main"} {
		if count[role] != 1 {
			b.Errorf("%s: %d of the landmark %s", name, count[role], role)
		}
	}
	if n := read[int](b, `[...document.querySelectorAll("h1")].filter(h => h.checkVisibility()).length`); n != 1 {
		b.Errorf("%s: %d headings of level 1", name, n)
	}
}

func axText(v *accessibility.Value) (text string) {
	if v != nil {
		_ = json.Unmarshal(v.Value, &text) // other kinds of values are no text
	}
	return strings.TrimSpace(text)
}

// shoot writes a picture of the whole page if that was asked for.
func (b *tab) shoot(name string) {
	b.Helper()
	if *shots == "" {
		return
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(*shots, name+"-"+b.screen.name+"-"+b.screen.scheme+".png"), picture, 0o644)
	}
	if err != nil {
		b.Errorf("taking a picture of %s: %v", name, err)
	}
}
