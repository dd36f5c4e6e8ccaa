// Package validation judges PBXWebhook manifests as the API server does, without an API server: the
// same schema, defaults and CEL rules, run by the API server's own library.
//
// It serves commands that people run. It must not know what receivers do with a manifest, and the
// receiver must not import it: the library is larger than the receiver.
package validation

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	schemavalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/config/crd"
)

// Validator judges PBXWebhooks. It is safe for use by several goroutines.
type Validator struct {
	structural *structuralschema.Structural
	schema     schemavalidation.SchemaValidator
	rules      *cel.Validator
}

// New reads the CustomResourceDefinition that this build carries.
func New() (*Validator, error) {
	definition := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict(crd.YAML, definition); err != nil {
		return nil, fmt.Errorf("read the built-in CustomResourceDefinition: %w", err)
	}
	external := definition.Spec.Versions[0].Schema
	internal := &apiextensions.CustomResourceValidation{}
	if err := apiextensionsv1.Convert_v1_CustomResourceValidation_To_apiextensions_CustomResourceValidation(external, internal, nil); err != nil {
		return nil, fmt.Errorf("convert the built-in schema: %w", err)
	}
	structural, err := structuralschema.NewStructural(internal.OpenAPIV3Schema)
	if err != nil {
		return nil, fmt.Errorf("the built-in schema is not structural: %w", err)
	}
	schema, _, err := schemavalidation.NewSchemaValidator(internal.OpenAPIV3Schema)
	if err != nil {
		return nil, fmt.Errorf("compile the built-in schema: %w", err)
	}
	return &Validator{
		structural: structural,
		schema:     schema,
		rules:      cel.NewValidator(structural, true, celconfig.PerCallLimit),
	}, nil
}

// Create judges a new object. It returns the object as the API server would store it, with
// defaults, and every reason for which it would be refused. Unknown fields are refused too, as
// kubectl does.
func (v *Validator) Create(ctx context.Context, object *unstructured.Unstructured) (*v1alpha1.PBXWebhook, field.ErrorList) {
	return v.judge(ctx, object, nil)
}

// Update judges a change of an object that exists.
func (v *Validator) Update(ctx context.Context, object, old *unstructured.Unstructured) (*v1alpha1.PBXWebhook, field.ErrorList) {
	return v.judge(ctx, object, old)
}

func (v *Validator) judge(ctx context.Context, object, old *unstructured.Unstructured) (*v1alpha1.PBXWebhook, field.ErrorList) {
	var errs field.ErrorList
	content := runtime.DeepCopyJSON(object.Object)
	delete(content, "status") // a subresource: what a manifest says of it is ignored

	options := structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}
	for _, path := range pruning.PruneWithOptions(content, v.structural, true, options) {
		errs = append(errs, field.Invalid(field.NewPath(path), "", "unknown field"))
	}
	defaulting.PruneNonNullableNullsWithoutDefaults(content, v.structural)
	defaulting.Default(content, v.structural)

	errs = append(errs, validation.ValidateObjectMetaAccessor(namespaced(content), true, validation.NameIsDNSSubdomain, field.NewPath("metadata"))...)
	var before any
	if old != nil {
		oldContent := runtime.DeepCopyJSON(old.Object)
		defaulting.Default(oldContent, v.structural)
		before = oldContent
		errs = append(errs, schemavalidation.ValidateCustomResourceUpdate(nil, content, before, v.schema)...)
	} else {
		errs = append(errs, schemavalidation.ValidateCustomResource(nil, content, v.schema)...)
	}
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, v.structural, content)...)
	if !slices.ContainsFunc(errs, blocksRules) {
		ruleErrs, _ := v.rules.Validate(ctx, nil, v.structural, content, before, celconfig.RuntimeCELCostBudget)
		errs = append(errs, ruleErrs...)
	}
	if len(errs) > 0 {
		return nil, errs
	}

	webhook := &v1alpha1.PBXWebhook{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(content, webhook); err != nil {
		return nil, field.ErrorList{field.InternalError(nil, fmt.Errorf("what the schema accepted does not decode: %w", err))}
	}
	return webhook, nil
}

// blocksRules is whether an error keeps the API server from judging rules at all: they would fail on
// what is not there, or is not what they take it for.
func blocksRules(err *field.Error) bool {
	switch err.Type {
	case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
		return true
	default:
		return false
	}
}

func namespaced(content map[string]any) *unstructured.Unstructured {
	meta := &unstructured.Unstructured{Object: content}
	if meta.GetNamespace() == "" {
		meta = meta.DeepCopy()
		meta.SetNamespace("default")
	}
	return meta
}
