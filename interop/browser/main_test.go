// Package browser walks the portal with a real browser: headless Chromium
// against the binary that operators run, on loopback.
//
//	go test ./browser -shots <dir>
//
// writes a picture of every page too, for people to look at.
package browser

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

var shots = flag.String("shots", "", "directory to write a picture of every page to")

const (
	// patience bounds every wait for something that has to happen. Nothing is
	// measured by it.
	patience = 30 * time.Second
	// glance is the pause between two looks at what has to happen.
	glance = 20 * time.Millisecond
)

func TestMain(m *testing.M) {
	flag.Parse()
	walkSideBySide()
	code := m.Run()
	if endChromium != nil {
		endChromium()
	}
	if scratch != "" {
		_ = os.RemoveAll(scratch)
	}
	os.Exit(code)
}

// walkSideBySide lets more walks run at a time than there are processors, as most
// of a walk is waiting. The flag -parallel goes before.
func walkSideBySide() {
	const flagName = "test.parallel"
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == flagName })
	if !set {
		_ = flag.Set(flagName, strconv.Itoa(max(4, runtime.GOMAXPROCS(0)))) // it exists
	}
}

// scratch is a directory for what all tests share.
var scratch string

var makeScratch = sync.OnceValue(func() (err error) {
	scratch, err = os.MkdirTemp("", "browser")
	return err
})

// buildCaddy builds, once, the binary that operators run.
var buildCaddy = sync.OnceValues(func() (binary string, err error) {
	if err := makeScratch(); err != nil {
		return "", err
	}
	binary = filepath.Join(scratch, "caddy")
	cmd := exec.Command("go", "build", "-o", binary, "./cmd/caddy")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building caddy: %w\n%s", err, out)
	}
	return binary, nil
})

// endChromium ends the browser's process and waits for it.
var endChromium func()

// startChromium starts, once, the browser whose profiles the tests share out.
var startChromium = sync.OnceValues(func() (context.Context, error) {
	path, err := findChromium()
	if err != nil {
		return nil, err
	}
	if err := makeScratch(); err != nil {
		return nil, err
	}
	home := filepath.Join(scratch, "home") // Chromium writes more than its profile
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.Flag("headless", "new"),
		chromedp.UserDataDir(filepath.Join(scratch, "profile")),
		chromedp.Env("HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_CACHE_HOME="+home),
		chromedp.Flag("no-proxy-server", true),
		// Whatever it wants to reach beyond loopback, it can't.
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
		chromedp.Flag("disable-component-update", true),
	)
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox) // it refuses to be root otherwise
	}
	allocator, end := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	endChromium = func() {
		// By its own means, so that none of its processes is left; else by force.
		gently, expire := context.WithTimeout(ctx, patience)
		defer expire()
		_ = chromedp.Cancel(gently)
		cancel()
		end()
	}
	if err := chromedp.Do(ctx); err != nil {
		return nil, fmt.Errorf("starting Chromium: %w", err)
	}
	return ctx, nil
})

func findChromium() (path string, err error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("there is no Chromium, and these tests are about a real browser: apt-get install -y chromium")
}
