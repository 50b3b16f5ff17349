package caddymodule

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// This file is the shapes of the status page: what its SVG is drawn of.

// life is how much of a token's life is left, in percent.
func life(obtained, expires, now time.Time) int {
	whole := expires.Sub(obtained)
	if whole <= 0 {
		return 0
	}
	return int(math.Round(100 * min(1, max(0, float64(expires.Sub(now))/float64(whole)))))
}

// A chart shows the token requests of a day, an hour per bar: tokens above the
// base line, failures below it.
type chart struct {
	Hours               []chartHour
	Refreshes, Failures int
	// Up and Down are the bars, as the path of an SVG; Base is where the base
	// line is.
	Up, Down string
	Base     float64
}

// A chartHour is an hour in which something happened, X where it is.
type chartHour struct {
	oauth.Hour
	X int
}

const (
	chartHeight  = 60.0
	hourWidth    = 10
	barWidth     = 8
	leastBar     = 2.0 // so that one of many is seen
	failureShare = 0.4 // of the height, for what is below the base line
	fullBar      = 4   // so many at least make a bar of the whole height
)

// chartOf draws the hours to one scale.
func chartOf(h *oauth.History) (c chart) {
	ups, downs := 0, 0 // at most in an hour
	for i, hour := range h.Hours {
		c.Refreshes, c.Failures = c.Refreshes+hour.Refreshes, c.Failures+hour.Failures
		ups, downs = max(ups, hour.Refreshes), max(downs, hour.Failures)
		if hour.Refreshes > 0 || hour.Failures > 0 {
			c.Hours = append(c.Hours, chartHour{hour, i * hourWidth})
		}
	}
	var scale float64
	c.Base, scale = chartScale(ups, downs)
	var up, down strings.Builder
	for _, hour := range c.Hours {
		bar(&up, hour.X, c.Base, -barHeight(hour.Refreshes, scale))
		bar(&down, hour.X, c.Base, barHeight(hour.Failures, scale))
	}
	c.Up, c.Down = up.String(), down.String()
	return c
}

// chartScale is where the base line is, and how high one thing is.
func chartScale(ups, downs int) (base, scale float64) {
	base = chartHeight
	switch {
	case downs > 0 && ups > 0:
		base = chartHeight * (1 - failureShare)
	case downs > 0:
		base = 0
	}
	scale = math.Inf(1)
	if ups > 0 {
		scale = base / float64(max(fullBar, ups))
	}
	if downs > 0 {
		scale = min(scale, (chartHeight-base)/float64(max(fullBar, downs)))
	}
	return base, scale
}

// bar adds a bar to a path, upwards if its height is negative.
func bar(path *strings.Builder, x int, base, height float64) {
	if height != 0 {
		fmt.Fprintf(path, "M%d %gv%.1fh%dV%gz", x+(hourWidth-barWidth)/2, base, height, barWidth, base)
	}
}

func barHeight(n int, scale float64) float64 {
	if n == 0 {
		return 0
	}
	return max(leastBar, float64(n)*scale)
}

// Empty: there is nothing to draw.
func (c chart) Empty() bool { return len(c.Hours) == 0 }

// Says is the chart in a sentence.
func (c chart) Says() string {
	return counted(c.Refreshes, "token", "tokens") + ", " + counted(c.Failures, "failed attempt", "failed attempts")
}

// Failed lists the hours with failures, for who doesn't see the chart.
func (c chart) Failed() string {
	var hours []string
	for _, b := range c.Hours {
		if b.Failures > 0 {
			hours = append(hours, b.Start.UTC().Format("15:04 UTC")+": "+counted(b.Failures, "failed attempt", "failed attempts"))
		}
	}
	return strings.Join(hours, ", ")
}

// Says is the hour in words.
func (b chartHour) Says() string {
	return b.Start.UTC().Format("15:04") + "–" + b.Start.UTC().Add(time.Hour).Format("15:04 UTC") + ": " +
		counted(b.Refreshes, "token", "tokens") + ", " + counted(b.Failures, "failed attempt", "failed attempts")
}
