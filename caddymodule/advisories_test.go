package caddymodule

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// advisories are those that hit peers, by their ids, and the tests that try the
// same here. For those without, docs/security.md says why it can't happen.
var advisories = map[string][]string{
	"CVE-2021-32813": {"TestConnectionMatrix"}, "CVE-2024-45410": {"TestConnectionMatrix"}, "GHSA-62c8-mh53-4cqv": {"TestConnectionMatrix"},
	"CVE-2026-29054": {"TestConnectionMatrix"}, "GHSA-92mv-8f8w-wq52": {"TestConnectionMatrix"}, "CVE-2025-48865": {"TestConnectionMatrix"},
	"CVE-2026-33433": {"TestProtectedFields"}, "GHSA-qr99-7898-vr7c": {"TestProtectedFields"}, "GHSA-5m6w-wvh7-57vm": {"TestProtectedFields"},
	"CVE-2026-54763": {"TestProtectedFields"}, "CVE-2026-88011": {"TestProtectedFields"}, "GHSA-rf44-j88r-hh8c": {"TestProtectedFields"},
	"CVE-2026-88879": {"TestProtectedFields"}, "GHSA-6384-m2mw-rf54": {"TestProtectedFields"}, "CVE-2025-64484": {"TestProtectedFields", "FuzzHeaderFilter"}, "GHSA-vjrc-mh2v-45x6": {"TestProtectedFields"},
	"CVE-2025-66414": {"TestAttackFromPages"}, "CVE-2026-34742": {"TestAttackFromPages"}, "CVE-2026-11624": {"TestAttackFromPages"},
	"CVE-2025-54576": {"TestAmbiguousPaths"}, "GHSA-7rh7-c77v-6434": {"TestAmbiguousPaths"},
	"CVE-2026-40575": {"TestGuardForwarded"}, "GHSA-7x63-xv5r-3p2x": {"TestGuardForwarded"}, "CVE-2026-76835": {"TestGuardForwarded", "TestPortalForwarded"},
	"CVE-2026-34457": {"TestReadyAccounts"}, "GHSA-5hvv-m4w4-gf6v": {"TestReadyAccounts"},
	"CVE-2026-40574": {"TestUserOf"}, "GHSA-c5c4-8r6x-56w3": {"TestUserOf"}, "GHSA-pxq7-h93f-9jrg": {"TestGuardStrangeTargets"}, "GHSA-f24x-5g9q-753f": {"TestLogoutStaysOut"},
	"CVE-2026-83589": {"TestPortalOpenRedirect"},
	"CVE-2026-27589": {"TestAdminRefusesWebPages"}, "GHSA-879p-475x-rqh2": {"TestAdminRefusesWebPages"},
	"CVE-2026-27586": {"TestUnreadableFilesFailTheStart"},
	"CVE-2026-27587": {"TestAmbiguousPaths"}, "CVE-2026-27588": {"FuzzHostAllowed", "TestGuardHosts"}, "CVE-2026-27585": nil, "CVE-2026-27590": nil,
	"CVE-2026-30851": {"TestUsersForwardAuth"}, "GHSA-7r4p-vjf4-gxv4": {"TestUsersForwardAuth"},
	"CVE-2026-30852": {"TestPlaceholdersOfCallersAreText"}, "GHSA-m2w3-8f23-hxxf": {"TestPlaceholdersOfCallersAreText"}, "GO-2026-5730": {"TestPlaceholdersOfCallersAreText", "TestPlaceholdersOfTheConfigurationOnly"},
	"CVE-2026-52845": {"TestProtectedFields"}, "GHSA-f59h-q822-g45g": {"TestProtectedFields"}, "#7934": {"TestProtectedFields"}, "#7941": {"TestAmbiguousPaths"},
	"CVE-2026-55458": {"TestUpgradeResponse", "TestInterimResponses"}, "CVE-2026-92284": {"TestNoBodyPlaceholder", "TestGigabyte"},
	"CVE-2026-56866": {"TestConnectRefused", "TestSmuggling"}, "CVE-2026-94439": {"TestConnectRefused"}, "CVE-2026-71324": {"TestConnectRefused"}, "CVE-2026-88008": {"TestConnectRefused"},
	"CVE-2026-73548": {"TestUpgradeOwnsItsConnection"}, "CVE-2026-2833": {"TestUpgradeOwnsItsConnection"},
	"CVE-2026-88007": {"TestUsersUnderLoad"},
	"CVE-2024-21495": {"TestRandomIsCryptographic", "TestRandomValues"}, "GHSA-c7vf-m394-m4x4": {"TestRandomIsCryptographic"},
	"GHSA-vj36-3ccr-6563": {"TestPortalForwarded"}, "CVE-2024-21492": {"TestPortalTimes"}, "CVE-2024-21500": {"TestPortalOpenRedirect"},
	"CVE-2022-29226": {"TestNoToken"}, "CVE-2022-29228": {"TestNoToken"}, "CVE-2023-27496": {"FuzzReadCallback", "FuzzLogins"},
	"CVE-2023-35941": {"TestLatchKeyBorders", "TestSealedPlace"}, "GHSA-7mhv-gr67-hq55": {"TestLatchKeyBorders"},
	"CVE-2026-48042": {"TestHugeAnswers", "TestF33HugeAnswers"}, "GHSA-4gph-2hhr-5mwg": {"TestReadAnswerRefreshTokenFirst"},
	"CVE-2020-11710":      {"TestExampleAdapts"},
	"GHSA-25xj-89g5-fm6h": {"TestCanaryLife"}, "CVE-2021-38554": {"TestCanaryLife"}, "CVE-2022-38149": {"TestErrorCodeWithSecret"}, "CVE-2026-55102": {"TestCanaryLife"},
	"67620": {"TestUpstreamNotAllowed"}, "67706": {"TestUpstreamNotAllowed"}, "67707": {"TestUpstreamNotAllowed"}, "aws-sigv4-proxy": {"TestGuardStrangeTargets", "TestGigabyte"},
	"CVE-2025-6514":  {"TestLoginCommandOpens", "TestBrowsePrivately"},
	"CVE-2024-45336": {"TestG14Redirects"}, "CVE-2023-45289": {"TestG14Redirects"}, "CVE-2025-4673": {"TestG14Redirects"}, "CVE-2025-22871": {"TestSmuggling"},
	"CVE-2025-22868": {"TestCheckIDTokenForm", "FuzzCheckIDToken"}, "CVE-2026-33494": {"TestAmbiguousPaths"},
	"CVE-2026-50631": {"TestF51ServerRotatesTwiceOnParallelUse"}, "CVE-2026-22751": {"TestCodeIsSentOnce"},
	"#360": {"TestUsersUnderLoad"}, "CVE-2025-26620": {"TestUsersAreApart"},
}

// lastThreat is the last row of the threat table.
const lastThreat = 33

var (
	testName   = regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w+`)
	advisoryID = regexp.MustCompile(`\b(?:CVE-\d{4}-\d+|GHSA(?:-\w{4}){3}|GO-\d{4}-\d+)\b`)
)

// testsOfAll are the tests of all packages, by name, with their files.
func testsOfAll(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Z]\w+)\(\w+ \*testing\.[TF]\)`)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".") && d.Name() != ".."):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range function.FindAllStringSubmatch(string(text), -1) {
			all[m[1]] = path
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// rowsOf are the rows of the tables of a document.
func rowsOf(text string) (rows []string) {
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "|---") {
			rows = append(rows, line)
		}
	}
	return rows
}

// docs/security.md has a row for each threat, with tests that exist, and one for
// each advisory, with the tests that are named here.
func TestSecurityDocument(t *testing.T) {
	t.Parallel()
	tests, text := testsOfAll(t), read(t, "../docs/security.md")
	rows := rowsOf(text)
	for _, name := range testName.FindAllString(text, -1) {
		if tests[name] == "" {
			t.Errorf("docs/security.md names %s, which isn't there", name)
		}
	}
	for n := 1; n <= lastThreat; n++ {
		row := rowWith(rows, fmt.Sprintf("| TM-%d ", n))
		if row == "" {
			t.Errorf("docs/security.md has no row TM-%d", n)
			continue
		}
		if cells := strings.Split(strings.ReplaceAll(row, `\|`, "/"), "|"); len(cells) != 7 {
			t.Errorf("TM-%d has %d cells", n, len(cells)-2)
		} else if !testName.MatchString(cells[4]) || strings.TrimSpace(cells[3]) == "" {
			t.Errorf("TM-%d has no test, or says nothing", n)
		}
	}
	for id, names := range advisories {
		row := rowWith(rows, id)
		if row == "" {
			t.Errorf("docs/security.md has no row with %s", id)
		}
		for _, name := range names {
			if tests[name] == "" {
				t.Errorf("%s: %s isn't there", id, name)
			}
			if !strings.Contains(row, "`"+name+"`") {
				t.Errorf("docs/security.md doesn't name %s in the row of %s", name, id)
			}
		}
		if cells := strings.Split(row, "|"); len(names) == 0 && (len(cells) < 5 || len(cells[3]) < 20) {
			t.Errorf("docs/security.md doesn't say why %s can't happen", id)
		}
	}
	for _, id := range advisoryID.FindAllString(text, -1) {
		if _, ok := advisories[id]; !ok {
			t.Errorf("docs/security.md names %s, which isn't in advisories", id)
		}
	}
}

func rowWith(rows []string, part string) string {
	for _, row := range rows {
		if strings.Contains(row, part) {
			return row
		}
	}
	return ""
}
