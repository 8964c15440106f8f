package alongside

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"testing"
	"time"

	lua "github.com/yuin/gopher-lua"
	luajson "layeh.com/gopher-json"
	"sigs.k8s.io/yaml"
)

// argocd is the ConfigMap that we ship.
type argocd struct {
	Data map[string]string `json:"data"`
}

func readArgocd(t *testing.T) argocd {
	t.Helper()
	var config argocd
	read(t, "../../integrations/argocd/argocd-cm.yaml", &config)
	return config
}

// script is a customization of a kind; there must be one.
func (a argocd) script(t *testing.T, what, kind string) string {
	t.Helper()
	text, ok := a.Data["resource.customizations."+what+".ostler.dev_"+kind]
	if !ok {
		t.Fatalf("argocd-cm.yaml has no %s for %s", what, kind)
	}
	return text
}

// run executes a script on an object and gives what it returns as JSON. It has the libraries that Argo CD opens where
// useOpenLibs is not set, and a second of time: package, base, table, and of os what tells the time.
func run(script string, object map[string]any) ([]byte, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{
		{lua.LoadLibName, lua.OpenPackage},
		{lua.BaseLibName, lua.OpenBase},
		{lua.TabLibName, lua.OpenTable},
		{lua.OsLibName, openClock},
	} {
		open := lua.P{Fn: state.NewFunction(library.open), Protect: true}
		if err := state.CallByParam(open, lua.LString(library.name)); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	state.SetContext(ctx)
	state.SetGlobal("obj", toLua(state, object))
	if err := state.DoString(script); err != nil {
		return nil, err
	}
	result := state.Get(-1)
	if result.Type() != lua.LTTable {
		return nil, errors.New("the script returns no table, but: " + result.String())
	}
	return luajson.Encode(result)
}

// openClock opens the library os with nothing in it but date and time.
func openClock(state *lua.LState) int {
	lua.OpenOs(state)
	whole := state.Get(-1).(*lua.LTable)
	whole.ForEach(func(name, _ lua.LValue) {
		if word := name.String(); word != "date" && word != "time" {
			whole.RawSet(name, lua.LNil)
		}
	})
	return 1
}

// toLua turns JSON into Lua as Argo CD does: whole numbers are int64 there, which the JSON library does not know.
func toLua(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case int64:
		return lua.LNumber(value)
	case map[string]any:
		table := state.NewTable()
		for key, item := range value {
			table.RawSetString(key, toLua(state, item))
		}
		return table
	case []any:
		table := state.NewTable()
		for _, item := range value {
			table.Append(toLua(state, item))
		}
		return table
	default:
		return luajson.DecodeValue(state, value)
	}
}

// health is what Argo CD shows of an object.
func (a argocd) health(t *testing.T, kind string, object map[string]any) string {
	t.Helper()
	encoded, err := run(a.script(t, "health", kind), object)
	if err != nil {
		t.Fatal(err)
	}
	var health struct {
		Status  string  `json:"status"`
		Message *string `json:"message"`
	}
	if err := json.Unmarshal(encoded, &health); err != nil {
		t.Fatalf("%s: %v", encoded, err)
	}
	if health.Message == nil {
		t.Errorf("no message: %s", encoded)
	}
	if health.Status != "Healthy" && *health.Message == "" {
		t.Errorf("%s says not why", health.Status)
	}
	return health.Status
}

// read reads what it needs of a YAML file.
func read(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = yaml.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// readTable reads a table of ours, and knows every field of it.
func readTable(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = yaml.UnmarshalStrict(text, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}
