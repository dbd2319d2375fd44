package audit_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// Every exported function, and every exported method of the types that a
// program opens, is used in an example whose output is checked.
func TestEveryEntryPointIsInAnExample(t *testing.T) {
	tests := func(name string) bool { return strings.HasSuffix(name, "_test.go") }
	used := map[string]bool{}
	for _, f := range parse(t, tests) {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !strings.HasPrefix(fn.Name.Name, "Example") || !checked(f, fn) {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok {
					used[s.Sel.Name] = true
				}
				return true
			})
		}
	}
	points := 0
	for _, f := range parse(t, func(name string) bool { return !tests(name) }) {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !fn.Name.IsExported() || !opened(fn) {
				continue
			}
			if points++; !used[fn.Name.Name] {
				t.Errorf("%s is in no example", fn.Name.Name)
			}
		}
	}
	if points < 25 {
		t.Errorf("%d entry points", points)
	}
}

func parse(t *testing.T, want func(name string) bool) []*ast.File {
	t.Helper()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, name := range names {
		if !want(name) {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// opened tells functions, and methods of Trail and AuditTrailManager.
func opened(fn *ast.FuncDecl) bool {
	if fn.Recv == nil {
		return true
	}
	star, ok := fn.Recv.List[0].Type.(*ast.StarExpr)
	if !ok {
		return false
	}
	name, ok := star.X.(*ast.Ident)
	return ok && (name.Name == "Trail" || name.Name == "AuditTrailManager")
}

// checked tells an example that has an output to compare.
func checked(f *ast.File, fn *ast.FuncDecl) bool {
	for _, c := range f.Comments {
		if c.Pos() > fn.Body.Pos() && c.End() < fn.Body.End() && strings.HasPrefix(c.Text(), "Output:") {
			return true
		}
	}
	return false
}
