package alongside

import (
	"encoding/json"
	"fmt"
	"reflect"
	"sort"
	"testing"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"sigs.k8s.io/yaml"
)

// deed is an entry of actions.yaml, which explains it.
type deed struct {
	Object struct {
		Kind        string            `json:"kind"`
		Annotations map[string]string `json:"annotations"`
		Spec        map[string]any    `json:"spec"`
		Status      map[string]any    `json:"status"`
	} `json:"object"`
	Offers []string       `json:"offers"`
	Action string         `json:"action"`
	Patch  map[string]any `json:"patch"`
}

// actions are those of a kind, as Argo CD reads them.
type actions struct {
	Discovery   string `json:"discovery.lua"`
	Definitions []struct {
		Name   string `json:"name"`
		Action string `json:"action.lua"`
	} `json:"definitions"`
}

func (a actions) lua(t *testing.T, name string) string {
	t.Helper()
	for _, definition := range a.Definitions {
		if definition.Name == name {
			return definition.Action
		}
	}
	t.Fatalf("there is no action %s", name)
	return ""
}

// offered are the names that a user can choose, sorted.
func (a actions) offered(t *testing.T, object map[string]any) []string {
	t.Helper()
	encoded, err := run(a.Discovery, object)
	if err != nil {
		t.Fatal(err)
	}
	var found map[string]struct {
		Disabled bool `json:"disabled"`
	}
	if err := json.Unmarshal(encoded, &found); err != nil {
		t.Fatalf("%s: %v", encoded, err)
	}
	if len(found) != len(a.Definitions) {
		t.Errorf("%d actions are named, and %d there", len(found), len(a.Definitions))
	}
	names := []string{}
	for name, action := range found {
		a.lua(t, name)
		if !action.Disabled {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}

// mend gives maps back that Lua, which has but one empty table, turned into lists. Where there was something in such a
// map, older versions of Argo CD take it for unchanged, newer ones for emptied.
func mend(after, before any, older bool) any {
	switch before := before.(type) {
	case map[string]any:
		if list, ok := after.([]any); ok && len(list) == 0 {
			if older {
				return before
			}
			return map[string]any{}
		}
		if after, ok := after.(map[string]any); ok {
			for key, value := range after {
				after[key] = mend(value, before[key], older)
			}
		}
	case []any:
		if after, ok := after.([]any); ok {
			for index := range min(len(after), len(before)) {
				after[index] = mend(after[index], before[index], older)
			}
		}
	}
	return after
}

// patch is the merge patch that Argo CD sends, and what it makes of the object.
func patch(t *testing.T, script string, object map[string]any, older bool) (sent, result map[string]any) {
	t.Helper()
	encoded, err := run(script, object)
	if err != nil {
		t.Fatal(err)
	}
	var after any
	if err := json.Unmarshal(encoded, &after); err != nil {
		t.Fatal(err)
	}
	old, _ := json.Marshal(object)
	changed, _ := json.Marshal(mend(after, object, older))
	text, err := jsonpatch.CreateMergePatch(old, changed)
	if err != nil {
		t.Fatal(err)
	}
	merged, err := jsonpatch.MergePatch(old, text)
	if err != nil {
		t.Fatal(err)
	}
	if json.Unmarshal(text, &sent) != nil || json.Unmarshal(merged, &result) != nil {
		t.Fatalf("no objects: %s %s", text, merged)
	}
	return sent, result
}

// now takes the time out of a patch, if it is that of the test.
func now(t *testing.T, sent map[string]any, started time.Time) {
	t.Helper()
	metadata, ok := sent["metadata"].(map[string]any)
	if !ok {
		return
	}
	annotations := metadata["annotations"].(map[string]any)
	const name = "ostler.dev/reconcile-requested-at"
	at, err := time.Parse(time.RFC3339, fmt.Sprint(annotations[name]))
	if err != nil || at.Before(started.Truncate(time.Second)) || at.After(time.Now()) {
		t.Errorf("%v is not now: %v", annotations[name], err)
	}
	annotations[name] = "NOW"
}

func TestActionsDoWhatTheVerbsDo(t *testing.T) {
	var table []deed
	readTable(t, "actions.yaml", &table)
	known, config := kinds(t), readArgocd(t)
	tried := map[string]bool{}
	for number, deed := range table {
		t.Run(fmt.Sprintf("%d %s %s", number+1, deed.Object.Kind, deed.Action), func(t *testing.T) {
			metadata := map[string]any{"namespace": "default", "name": "a", "generation": 1}
			if deed.Object.Annotations != nil {
				metadata["annotations"] = deed.Object.Annotations
			}
			object := map[string]any{
				"apiVersion": "ostler.dev/v1alpha1", "kind": deed.Object.Kind, "metadata": metadata, "spec": deed.Object.Spec,
			}
			if deed.Object.Status != nil {
				object["status"] = deed.Object.Status
			}
			live := normal(t, object).Object
			known[deed.Object.Kind].admit(t, live)
			var all actions
			if err := yaml.Unmarshal([]byte(config.script(t, "actions", deed.Object.Kind)), &all); err != nil {
				t.Fatal(err)
			}
			if offered := all.offered(t, live); !reflect.DeepEqual(offered, deed.Offers) {
				t.Errorf("%v is offered, not %v", offered, deed.Offers)
			}
			if deed.Action == "" {
				return
			}
			tried[deed.Object.Kind+" "+deed.Action] = true
			for _, older := range []bool{true, false} {
				started := time.Now()
				sent, result := patch(t, all.lua(t, deed.Action), live, older)
				now(t, sent, started)
				if !reflect.DeepEqual(sent, deed.Patch) {
					t.Errorf("the patch is %v, not %v", sent, deed.Patch)
				}
				known[deed.Object.Kind].admit(t, normal(t, result).Object)
			}
		})
	}
	if len(tried) != 6 {
		t.Errorf("not every action was tried: %v", tried)
	}
}
