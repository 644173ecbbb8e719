package docs

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// documented are the Go packages that a program of others' is written with. Package control says for all its functions together which errors they have.
var documented = []string{"go/machnet", "go/fallback", "go/machnettest"}

// namesAnError is what a comment says that leads to the errors of its function: one of them, or whose errors they are.
var namesAnError = regexp.MustCompile(`\bE[A-Z]{4,}\b|\bErr[A-Z]\w*|\bio\.(Unexpected)?EOF\b|\b(net|fs)\.\w*Err\w*|\bcontext\.\w+` +
	`|[Ee]rrors? (is|are|of|as) |\bfails? as |\b(is|are) (the package's )?(\w+\.)?[A-Z]\w+ (for|of|that|with|without)\b|only error|never (fails|an error)`)

func TestEveryExportedGoNameIsDocumentedAndItsErrorsToo(t *testing.T) {
	functions := 0
	for _, folder := range documented {
		set := token.NewFileSet()
		paths, err := filepath.Glob(filepath.Join(root, folder, "*.go"))
		if err != nil || len(paths) == 0 {
			t.Fatalf("no Go files in %s: %v", folder, err)
		}
		var files []*ast.File
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(set, path, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
		}
		d, err := doc.NewFromFiles(set, files, folder)
		if err != nil {
			t.Fatal(err)
		}
		if d.Doc == "" {
			t.Errorf("package %s has no comment", d.Name)
		}
		function := func(f *doc.Func, of string) {
			functions++
			text := strings.Join(strings.Fields(f.Doc), " ")
			switch {
			case text == "":
				t.Errorf("%s: %s%s has no comment", folder, of, f.Name)
			case returnsError(f.Decl) && !isOfAnInterface(f) && !namesAnError.MatchString(text):
				t.Errorf("%s: the comment of %s%s names none of its errors:\n%s", folder, of, f.Name, text)
			}
		}
		values := func(group []*doc.Value, of string) {
			for _, value := range group {
				if value.Doc == "" && eachHasAComment(value.Decl) {
					continue
				}
				if value.Doc == "" {
					t.Errorf("%s: %s%s have no comment", folder, of, strings.Join(value.Names, ", "))
				}
			}
		}
		values(d.Consts, "")
		values(d.Vars, "")
		for _, f := range d.Funcs {
			function(f, "")
		}
		for _, typ := range d.Types {
			if typ.Doc == "" {
				t.Errorf("%s: type %s has no comment", folder, typ.Name)
			}
			values(typ.Consts, typ.Name+": ")
			values(typ.Vars, typ.Name+": ")
			for _, f := range append(typ.Funcs, typ.Methods...) {
				function(f, typ.Name+".")
			}
			fields(t, folder, typ)
		}
	}
	if functions < 60 {
		t.Errorf("saw only %d functions", functions)
	}
}

func returnsError(f *ast.FuncDecl) bool {
	if f.Type.Results == nil {
		return false
	}
	for _, result := range f.Type.Results.List {
		if name, ok := result.Type.(*ast.Ident); ok && name.Name == "error" {
			return true
		}
	}
	return false
}

func eachHasAComment(d *ast.GenDecl) bool {
	for _, spec := range d.Specs {
		if value := spec.(*ast.ValueSpec); value.Doc == nil && value.Comment == nil {
			return false
		}
	}
	return true
}

// isOfAnInterface: of the interfaces that error types implement, and that say themselves what they mean.
func isOfAnInterface(f *doc.Func) bool { return f.Name == "Unwrap" || f.Name == "Error" }

// fields wants a comment at every exported field of a struct, or at one before it that speaks of both, unless the type's own comment speaks
// of its fields.
func fields(t *testing.T, folder string, typ *doc.Type) {
	t.Helper()
	if strings.Contains(typ.Doc, "fields") {
		return
	}
	for _, spec := range typ.Decl.Specs {
		structure, ok := spec.(*ast.TypeSpec).Type.(*ast.StructType)
		if !ok {
			continue
		}
		commented := false
		for _, field := range structure.Fields.List {
			if len(field.Names) > 0 && !field.Names[0].IsExported() {
				continue
			}
			if field.Doc != nil || field.Comment != nil {
				commented = true
			} else if !commented {
				t.Errorf("%s: the first field of %s without a comment is %v", folder, typ.Name, field.Names)
			}
		}
	}
}
