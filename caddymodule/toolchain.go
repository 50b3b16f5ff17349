package caddymodule

import (
	"go/version"
	"log/slog"
	"runtime"
)

// safeGo is the first release without CVE-2026-56866, by which a CONNECT with
// a body poisons the pool of upstream connections. Guard and transport refuse
// such methods, so that an older one isn't open to it; it is told nevertheless.
const safeGo = "go1.26.9"

func oldToolchain(v string) bool { return version.IsValid(v) && version.Compare(v, safeGo) < 0 }

func warnOldToolchain(log *slog.Logger) {
	if v := runtime.Version(); oldToolchain(v) {
		log.Warn("this binary was built with an old Go; build it with "+safeGo+" or newer (CVE-2026-56866)", "go", v)
	}
}
