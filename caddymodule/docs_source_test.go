package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	goparser "go/parser"
	"go/token"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// This file finds, for the tests of the documentation, what the source has.

// sourceFiles are the parsed files of a directory, without tests.
var sourceFiles = func() func(dir string) ([]*ast.File, error) {
	var mu sync.Mutex
	known := map[string][]*ast.File{}
	return func(dir string) ([]*ast.File, error) {
		mu.Lock()
		defer mu.Unlock()
		if files := known[dir]; files != nil {
			return files, nil
		}
		names, err := filepath.Glob(dir + "/*.go")
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := goparser.ParseFile(token.NewFileSet(), name, nil, goparser.SkipObjectResolution)
			if err != nil {
				return nil, err
			}
			known[dir] = append(known[dir], f)
		}
		return known[dir], nil
	}
}()

func parsed(t *testing.T, dir string) []*ast.File {
	t.Helper()
	files, err := sourceFiles(dir)
	if err != nil || len(files) == 0 {
		t.Fatalf("parsing %s: %d files, %v", dir, len(files), err)
	}
	return files
}

// literalText is the value of a string literal.
func literalText(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

// sourceTexts are all string literals.
func sourceTexts(t *testing.T) map[string]bool {
	t.Helper()
	texts := map[string]bool{}
	for _, dir := range []string{".", "../internal/oauth", "../internal/store"} {
		for _, f := range parsed(t, dir) {
			ast.Inspect(f, func(n ast.Node) bool {
				if e, ok := n.(ast.Expr); ok {
					if text, ok := literalText(e); ok {
						texts[text] = true
					}
				}
				return true
			})
		}
	}
	return texts
}

// functionName is Type.name of a method.
func functionName(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return f.Name.Name
	}
	of := f.Recv.List[0].Type
	if star, ok := of.(*ast.StarExpr); ok {
		of = star.X
	}
	return fmt.Sprint(of) + "." + f.Name.Name
}

// eachFunction calls for each function of this package.
func eachFunction(t *testing.T, do func(name string, f *ast.FuncDecl)) {
	t.Helper()
	for _, file := range parsed(t, ".") {
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil {
				do(functionName(f), f)
			}
		}
	}
}

// ofParsers reports whether an expression is a map of parsers of options.
func ofParsers(e ast.Expr) bool {
	m, ok := e.(*ast.MapType)
	if !ok || fmt.Sprint(m.Key) != "string" {
		return false
	}
	f, ok := m.Value.(*ast.FuncType)
	return fmt.Sprint(m.Value) == "parser" || ok && len(f.Params.List) == 1
}

// sourceOptions are the names of the options that a function parses, by the
// function: the keys of its maps of parsers, and those that it puts into one.
func sourceOptions(t *testing.T) map[string][]string {
	t.Helper()
	options := map[string][]string{}
	eachFunction(t, func(name string, f *ast.FuncDecl) {
		var maps bool
		add := func(key ast.Expr) {
			if text, ok := literalText(key); ok {
				options[name] = append(options[name], strings.TrimSuffix(text, "..."))
			}
		}
		ast.Inspect(f.Body, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				if !ofParsers(n.Type) {
					return true
				}
				for _, e := range n.Elts {
					add(e.(*ast.KeyValueExpr).Key)
				}
			case *ast.CallExpr:
				s, ok := n.Fun.(*ast.SelectorExpr)
				maps = maps || ok && s.Sel.Name == "parsers"
			case *ast.AssignStmt:
				if at, ok := n.Lhs[0].(*ast.IndexExpr); ok && maps {
					add(at.Index)
				}
			}
			return true
		})
	})
	return options
}

// allProblems are the problems by code, without those that only Caddy makes.
func allProblems() map[string]problem {
	all := map[string]problem{}
	for code := range problems {
		all[code] = refusal(code, "")
	}
	for _, err := range []error{
		oauth.ErrUnavailable, oauth.ErrLoginRequired, oauth.ErrCredentialsRejected, oauth.ErrMisconfigured, oauth.ErrTokenTimeout,
		oauth.ErrBusy, oauth.ErrStoreUnavailable, oauth.ErrUnknownAccount, oauth.ErrUnknownUser, oauth.ErrClosed, context.Canceled, errors.New(""),
	} {
		p := tokenProblem(err, time.Now())
		all[p.Code] = p
	}
	return all
}

// The codes in the source are those that the errors above make: a code for a
// new error must not go unnoticed.
func TestAllProblems(t *testing.T) {
	t.Parallel()
	codes := map[string]bool{}
	eachFunction(t, func(name string, f *ast.FuncDecl) {
		ast.Inspect(f.Body, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if name == "tokenProblem" && len(n.Lhs) == len(n.Rhs) {
					for i, left := range n.Lhs {
						s, ok := left.(*ast.SelectorExpr)
						if text, isText := literalText(n.Rhs[i]); ok && isText && s.Sel.Name == "Code" {
							codes[text] = true
						}
					}
				}
			case *ast.CallExpr:
				if fmt.Sprint(n.Fun) == "refusal" {
					if text, ok := literalText(n.Args[0]); ok {
						codes[text] = true
					}
				}
			}
			return true
		})
	})
	var got, want []string
	for code := range allProblems() {
		got = append(got, code)
	}
	for code := range codes {
		want = append(want, code)
	}
	sameNames(t, "problems", got, want)
}

var (
	notInAnchor = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	docHeading  = regexp.MustCompile(`(?m)^(#+) (.*)$`)
)

// anchor is the fragment by which a heading is linked to.
func anchor(heading string) string {
	return strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}

// linked is the text of the section, with its subsections, that a link in a
// page leads to.
func linked(t *testing.T, page, link string) (string, error) {
	t.Helper()
	file, fragment, _ := strings.Cut(link, "#")
	target := page
	if file != "" {
		target = path.Join(path.Dir(page), file)
	}
	text := read(t, "../"+target)
	if fragment == "" {
		return text, nil
	}
	found := docHeading.FindAllStringSubmatchIndex(text, -1)
	for i, at := range found {
		if anchor(text[at[4]:at[5]]) != fragment {
			continue
		}
		end := len(text)
		for _, next := range found[i+1:] {
			if next[3]-next[2] <= at[3]-at[2] {
				end = next[0]
				break
			}
		}
		return text[at[0]:end], nil
	}
	return "", errors.New("there is no such heading")
}
