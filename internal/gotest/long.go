package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// longForms returns the arguments of go test with which only tests that have a long form run: their packages instead of
// those in args, and -run with their names.
func longForms(args []string) ([]string, error) {
	isPackage := func(arg string) bool { return strings.HasPrefix(arg, "./") }
	list := exec.Command("go", slices.Concat([]string{"list", "-f", "{{.ImportPath}} {{.Dir}}"},
		slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return !isPackage(arg) }))...)
	listed, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("listing packages: %w", err)
	}
	var packages, names []string
	for line := range strings.Lines(string(listed)) {
		path, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
		long, err := longIn(dir)
		if err != nil {
			return nil, err
		}
		if len(long) > 0 {
			packages, names = append(packages, path), append(names, long...)
		}
	}
	if len(names) == 0 {
		return nil, errors.New("no test has a long form")
	}
	slices.Sort(names)
	pattern := "^(" + strings.Join(slices.Compact(names), "|") + ")$"
	return slices.Concat(slices.DeleteFunc(slices.Clone(args), isPackage), []string{"-run", pattern}, packages), nil
}

// longIn returns the tests in a folder that ask testing.Short(), themselves or in a function of the folder's tests that
// they call.
func longIn(dir string) (names []string, err error) {
	calls := make(map[string]map[string]bool) // functions by name, and the names in them
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, decl := range tree.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Body != nil {
				calls[fn.Name.Name] = namesIn(fn.Body)
			}
		}
	}
	for name := range calls {
		if strings.HasPrefix(name, "Test") && asksShort(name, calls, make(map[string]bool)) {
			names = append(names, name)
		}
	}
	return names, nil
}

const testingShort = "testing.Short"

// namesIn returns the names in a function's body; testing.Short is one.
func namesIn(body *ast.BlockStmt) map[string]bool {
	names := make(map[string]bool)
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Ident:
			names[n.Name] = true
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok {
				names[x.Name+"."+n.Sel.Name] = true
			}
			ast.Inspect(n.X, func(n ast.Node) bool { // a method's name is not that of a function
				if id, ok := n.(*ast.Ident); ok {
					names[id.Name] = true
				}
				return true
			})
			return false
		}
		return true
	})
	return names
}

func asksShort(name string, calls map[string]map[string]bool, seen map[string]bool) bool {
	if seen[name] {
		return false
	}
	seen[name] = true
	if calls[name][testingShort] {
		return true
	}
	for called := range calls[name] {
		if calls[called] != nil && asksShort(called, calls, seen) {
			return true
		}
	}
	return false
}
