package alongside

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// entry is one of health.yaml, which explains it.
type entry struct {
	State              string            `json:"state"`
	Kind               string            `json:"kind"`
	Generation         *int64            `json:"generation"`
	ObservedGeneration *int64            `json:"observedGeneration"`
	Spec               map[string]any    `json:"spec"`
	Status             map[string]any    `json:"status"`
	Reasons            []string          `json:"reasons"`
	Conditions         map[string]string `json:"conditions"`
	Argocd             string            `json:"argocd"`
	Flux               string            `json:"flux"`
	Kstatus            string            `json:"kstatus"`
}

// object is the entry with one of its reasons.
func (e entry) object(t *testing.T, reason string) *unstructured.Unstructured {
	t.Helper()
	generation := int64(1)
	if e.Generation != nil {
		generation = *e.Generation
	}
	object := map[string]any{
		"apiVersion": "ostler.dev/v1alpha1", "kind": e.Kind,
		"metadata": map[string]any{"namespace": "default", "name": "a", "generation": generation},
		"spec":     e.spec(),
	}
	if e.Status != nil || e.Conditions != nil {
		observed := int64(1)
		if e.ObservedGeneration != nil {
			observed = *e.ObservedGeneration
		}
		state := map[string]any{"observedGeneration": observed, "conditions": e.conditions(reason, observed)}
		for key, value := range e.Status {
			state[key] = value
		}
		if reason != "" {
			state["reason"] = reason
		}
		object["status"] = state
	}
	return normal(t, object)
}

// spec is the least that the kind needs, under what the entry says.
func (e entry) spec() map[string]any {
	spec := map[string]any{}
	switch e.Kind {
	case "Agent":
		spec["command"] = []any{"sh"}
	case "ConfigRepository":
		spec["url"] = "https://example.com/config"
	}
	for key, value := range e.Spec {
		spec[key] = value
	}
	return spec
}

func (e entry) conditions(reason string, generation int64) []any {
	list := []any{}
	for type_, text := range e.Conditions {
		state, own, _ := strings.Cut(text, " ")
		if own == "" {
			own = reason
		}
		list = append(list, map[string]any{
			"type": type_, "status": state, "reason": own, "message": "words", "observedGeneration": generation,
			"lastTransitionTime": "2026-01-01T00:00:00Z",
		})
	}
	return list
}

// normal is the object as an API server sends it, with whole numbers as int64.
func normal(t *testing.T, object map[string]any) *unstructured.Unstructured {
	t.Helper()
	text, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	var parsed unstructured.Unstructured
	if err := parsed.UnmarshalJSON(text); err != nil {
		t.Fatal(err)
	}
	return &parsed
}

// evaluators are those of the Kustomization that we ship, by kind.
func evaluators(t *testing.T) map[string]*cel.StatusEvaluator {
	t.Helper()
	var kustomization struct {
		Spec struct {
			HealthCheckExprs []kustomize.CustomHealthCheck `json:"healthCheckExprs"`
		} `json:"spec"`
	}
	read(t, "../../integrations/flux/kustomization.yaml", &kustomization)
	found := map[string]*cel.StatusEvaluator{}
	for _, check := range kustomization.Spec.HealthCheckExprs {
		if check.APIVersion != "ostler.dev/v1alpha1" {
			t.Fatalf("an expression is for %s", check.APIVersion)
		}
		evaluator, err := cel.NewStatusEvaluator(&check.HealthCheckExpressions)
		if err != nil {
			t.Fatalf("%s: %v", check.Kind, err)
		}
		found[check.Kind] = evaluator
	}
	return found
}

func TestEveryStateIsSeenAsItShouldBe(t *testing.T) {
	var table []entry
	readTable(t, "health.yaml", &table)
	known, config, exprs := kinds(t), readArgocd(t), evaluators(t)
	for _, entry := range table {
		reasons := entry.Reasons
		if len(reasons) == 0 {
			reasons = []string{""}
		}
		for _, reason := range reasons {
			t.Run(strings.TrimSpace(fmt.Sprintf("%s: %s %s", entry.Kind, entry.State, reason)), func(t *testing.T) {
				object := entry.object(t, reason)
				known[entry.Kind].admit(t, object.Object)
				argo := config.health(t, entry.Kind, object.Object)
				plain, err := status.Compute(object)
				if err != nil {
					t.Fatal(err)
				}
				flux := plain
				if evaluator, ok := exprs[entry.Kind]; ok {
					if flux, err = evaluator.Evaluate(context.Background(), object); err != nil {
						t.Fatal(err)
					}
				}
				seen := [3]string{argo, flux.Status.String(), plain.Status.String()}
				if expected := [3]string{entry.Argocd, entry.Flux, entry.Kstatus}; seen != expected {
					t.Errorf("Argo CD, Flux and kstatus see %v, not %v", seen, expected)
				}
			})
		}
	}
}

// Argo CD compares the health by itself, so ignoring the status is safe only as long as nothing but the status is.
func TestNothingButTheStatusIsNoNews(t *testing.T) {
	config := readArgocd(t)
	for kind := range kinds(t) {
		if text := config.script(t, "ignoreResourceUpdates", kind); strings.TrimSpace(text) != "jsonPointers: [/status]" {
			t.Errorf("%s: %s", kind, text)
		}
	}
}
