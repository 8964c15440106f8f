package alongside

import (
	"bytes"
	"context"
	"os"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	v1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"
)

// kind is what an API server knows of one of our kinds, from its CRD.
type kind struct {
	structural *schema.Structural
	validator  validation.SchemaValidator
	rules      *cel.Validator
}

// kinds reads the CRDs that we ship.
func kinds(t *testing.T) map[string]kind {
	t.Helper()
	text, err := os.ReadFile("../../schemas/crds.yaml")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]kind{}
	for _, document := range bytes.Split(text, []byte("\n---\n")) {
		var crd v1.CustomResourceDefinition
		if err := yaml.Unmarshal(document, &crd); err != nil {
			t.Fatal(err)
		}
		var props apiextensions.JSONSchemaProps
		source := crd.Spec.Versions[0].Schema.OpenAPIV3Schema
		if err := v1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(source, &props, nil); err != nil {
			t.Fatal(err)
		}
		structural, err := schema.NewStructural(&props)
		if err != nil {
			t.Fatal(err)
		}
		validator, _, err := validation.NewSchemaValidator(&props)
		if err != nil {
			t.Fatal(err)
		}
		rules := cel.NewValidator(structural, true, celconfig.PerCallLimit)
		found[crd.Spec.Names.Kind] = kind{structural, validator, rules}
	}
	if len(found) != 5 {
		t.Fatalf("5 kinds were expected, not %d", len(found))
	}
	return found
}

// admit fills in the defaults and refuses what an API server would refuse or drop.
func (k kind) admit(t *testing.T, object map[string]any) {
	t.Helper()
	defaulting.Default(object, k.structural)
	options := schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}
	for _, path := range pruning.PruneWithOptions(object, k.structural, true, options) {
		t.Errorf("unknown field %s", path)
	}
	for _, err := range validation.ValidateCustomResource(nil, object, k.validator) {
		t.Errorf("the schema refuses it: %v", err)
	}
	errs, _ := k.rules.Validate(context.Background(), nil, k.structural, object, nil, celconfig.RuntimeCELCostBudget)
	for _, err := range errs {
		t.Errorf("a rule refuses it: %v", err)
	}
}
