// Package console tries the console as its user would, in a browser.
package console

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var shots = flag.Bool("shots", false, "renew the screenshots of the docs")

const patience = time.Minute

// browser is a tab, and what it complained about.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	troubles []string
	requests []string // hosts
}

func open(t *testing.T, width, height int64, dark bool) *browser {
	t.Helper()
	program := os.Getenv("PBXHOOK_CHROMIUM")
	if program == "" {
		t.Skip("no Chromium: set PBXHOOK_CHROMIUM to one, as make test does by hack/chromium")
	}
	ctx, end := chromedp.NewContext(context.Background(), chromedp.WithAllocatorOptions(
		chromedp.ExecPath(program), chromedp.NoSandbox, chromedp.Env("TZ=UTC"), chromedp.Flag("force-device-scale-factor", "1")))
	t.Cleanup(end)
	b := &browser{t: t, ctx: ctx}
	require.NoError(t, chromedp.Listen(ctx, b.listen))
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	b.do(chromedp.EmulateViewport(width, height), chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		if _, err := cdp.Call(ctx, tab, log.Enable, cdp.Empty{}); err != nil {
			return err
		}
		if _, err := cdp.Call(ctx, tab, network.Enable, network.EnableParams{}); err != nil {
			return err
		}
		_, err := cdp.Call(ctx, tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	}))
	return b
}

func (b *browser) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *log.EventEntryAdded:
		b.troubles = append(b.troubles, e.Entry.Text)
	case *runtime.EventExceptionThrown:
		b.troubles = append(b.troubles, e.ExceptionDetails.Text)
	case *network.EventRequestWillBeSent:
		if host := regexp.MustCompile(`^\w+://([^/]*)`).FindStringSubmatch(e.Request.URL); host != nil {
			b.requests = append(b.requests, host[1])
		}
	}
}

// do acts in the tab, within a bounded time.
func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		text, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.body.innerText`)) // to say more
		require.NoError(b.t, err, "%s", text)
	}
}

func click(selector string) chromedp.Action[chromedp.Void] {
	return chromedp.Click(chromedp.CSS(selector))
}

func visible(selector string) chromedp.Action[chromedp.Void] {
	return chromedp.WaitVisible(chromedp.CSS(selector))
}

func (b *browser) eval(script string) string {
	b.t.Helper()
	value, err := b.try(script)
	require.NoError(b.t, err, script)
	return value
}

func (b *browser) try(script string) (string, error) {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[string](`String(`+script+`)`))
}

// eventually waits until a script says true. It may be asked while one page gives way to the next.
func (b *browser) eventually(what, script string) {
	b.t.Helper()
	require.EventuallyWithT(b.t, func(c *assert.CollectT) {
		value, err := b.try(script)
		require.NoError(c, err)
		require.Equal(c, "true", value)
	}, patience, 50*time.Millisecond, what)
}

// arrived waits until all of the page with such an address is there. A page that a click leaves may have what the next
// one is asked for.
func (b *browser) arrived(address string) {
	b.t.Helper()
	b.eventually("all of "+address, fmt.Sprintf(`location.href.includes(%q) && document.readyState === "complete"`, address))
}

// calm is whether all went without a complaint, and without a request to another place.
func (b *browser) calm(host string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Empty(b.t, b.troubles)
	require.NotEmpty(b.t, b.requests)
	for _, one := range b.requests {
		require.Equal(b.t, host, one)
	}
}

// fits is whether the page is no wider than the window.
func (b *browser) fits() {
	b.t.Helper()
	require.Equal(b.t, "true", b.eval(`document.documentElement.scrollWidth <= window.innerWidth`), "wider than the window")
}

// demo runs `pbxhook demo`, and returns the console's URL that it prints.
func demo(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds a program")
	}
	program := filepath.Join(t.TempDir(), "pbxhook")
	out, err := exec.Command("go", "build", "-o", program, "../../cmd/pbxhook").CombinedOutput()
	require.NoError(t, err, "%s", out)
	cmd := exec.Command(program, "demo")
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = cmd.Wait()                          // by the signal
	})
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if name, url, _ := strings.Cut(lines.Text(), " "); name == "console" {
			go func() { // ends with the process
				for lines.Scan() {
				}
			}()
			return strings.TrimSpace(url)
		}
	}
	require.Fail(t, "the demo did not print where its console is")
	return ""
}

// shot writes a screenshot of the whole page into the docs, when asked to.
func (b *browser) shot(name string) {
	b.t.Helper()
	if !*shots {
		return
	}
	image, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	require.NoError(b.t, err)
	require.NoError(b.t, os.WriteFile(filepath.Join("../../docs/images", name+".png"), image, 0o644))
}

// TestDemo: the calls of the demo are there, and go on coming; a ladder shows all events and replies; a dead letter
// is replayed by a click.
func TestDemo(t *testing.T) {
	url := demo(t)
	host := strings.Trim(strings.TrimPrefix(url, "http://"), "/")
	b := open(t, 1600, 1000, false)
	b.do(chromedp.Navigate(url))
	b.eventually("a call of each PBX", `["Simotel","VoIPstudio","Acefone"].every(p => document.body.innerText.toLowerCase().includes("demo/" + p.toLowerCase()))`)
	b.eventually("it is live", `document.getElementById("live").textContent === "live"`)
	before := b.eval(`document.querySelectorAll("a.call").length`)
	b.eventually("more calls come by themselves", `document.querySelectorAll("a.call").length > `+before)
	require.Equal(t, "true", b.eval(`document.body.innerText.includes("•") && !/\+\d{9}/.test(document.body.innerText)`), "numbers are masked")
	b.shot("calls")
	b.fits()

	// the first call of Simotel is the one that billing refused
	b.do(chromedp.SetValue(chromedp.CSS(`select[name=outcome]`), "deadLettered"), click(`.search button`))
	b.arrived("outcome=deadLettered")
	b.do(click(`a.call`), visible(`.ladder .row`))
	b.arrived("/call?")
	require.Equal(t, "5", b.eval(`document.querySelectorAll(".row.event").length`))
	b.eventually("crm took all", `document.querySelectorAll(".row.delivered").length === 5`)
	require.Equal(t, "1", b.eval(`document.querySelectorAll(".row.deadLettered").length`), "billing refused the one that it wants")
	b.do(click(`.row.deadLettered > summary`))
	require.Equal(t, "true", b.eval(`document.querySelector(".row.deadLettered pre").textContent.includes("no account has this number")`), "the reply")
	b.do(click(`.row.deadLettered [id$="-request"] > summary`), click(`.row.deadLettered [id$="-event"] > summary`))
	opened := b.eval(`document.querySelector(".row.deadLettered").innerText`)
	require.Contains(t, opened, "POST /Cdr")
	require.Contains(t, opened, `"type": "io.pbxhook.call.ended"`)
	require.NotRegexp(t, `\+\d{9}|recordings\.example\.com/\w`, opened, "numbers and recordings are masked")
	b.shot("call")
	b.do(click(`.row.event > summary`))
	require.Contains(t, b.eval(`document.querySelector(".row.event").textContent`), `202 {"id":`, "what the PBX was told")

	b.do(click(`form[action="/numbers"] button`))
	b.eventually("numbers are shown when asked for", `/\+\d{9}/.test(document.querySelector(".facts")?.innerText)`)
	b.do(click(`form[action="/numbers"] button`))
	b.eventually("and hidden again", `/\+•{9}/.test(document.querySelector(".facts")?.innerText)`)

	b.do(chromedp.Navigate(url+"dead-letters"), visible(`.confirm`))
	b.shot("dead-letters")
	b.do(click(`.confirm > summary`), click(`.confirm button`), visible(`.done`))
	require.Equal(t, "1 event on the way again", b.eval(`document.querySelector(".done").textContent`))
	require.Eventually(t, func() bool {
		b.do(chromedp.Navigate(url+"dead-letters"), visible(`main`))
		return b.eval(`document.querySelector(".empty") !== null`) == "true"
	}, patience, 200*time.Millisecond, "it is no dead letter any more")

	b.do(chromedp.Navigate(url+"targets"), visible(`section`))
	require.Equal(t, "3", b.eval(`document.querySelectorAll("section").length`))
	b.shot("targets")
	b.calm(host)
}

// TestNarrowAndDark: every page fits a telephone's window, in both colours, and can be used by the keyboard.
func TestNarrowAndDark(t *testing.T) {
	url := demo(t)
	for _, width := range []int64{400, 1600} {
		t.Run(fmt.Sprint(width), func(t *testing.T) {
			b := open(t, width, 900, width == 400)
			b.do(chromedp.Navigate(url))
			b.eventually("calls", `document.querySelectorAll("a.call").length > 2`)
			for _, page := range []string{"", "targets", "dead-letters", "rejected", "nothing", "?outcome=nonsense"} {
				b.do(chromedp.Navigate(url+page), visible(`h1`))
				b.fits()
				background := b.eval(`getComputedStyle(document.body).backgroundColor`)
				require.Equal(t, width == 400, background == "rgb(13, 17, 23)", background)
			}
			b.do(chromedp.Navigate(url), visible(`a.call`))
			if width == 400 {
				b.shot("calls-narrow")
			}
			b.do(chromedp.KeyEvent("/"))
			require.Equal(t, "search", b.eval(`document.activeElement.id`))
			b.do(click(`a.call`), visible(`.ladder .row`))
			b.arrived("/call?")
			b.fits()
			b.do(chromedp.Focus(chromedp.CSS(`.row > summary`)), chromedp.KeyEvent("\r"))
			b.eventually("the arrow is opened by the keyboard", `document.querySelector(".row").open`)
			b.fits()
			if width == 400 {
				b.shot("call-narrow")
			}
		})
	}
}
