package v1beta1

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validatePatches(path *field.Path, patches []Patch) field.ErrorList {
	var errs field.ErrorList
	for i, p := range patches {
		path := path.Index(i)
		if p.Target.Kind == "" {
			errs = append(errs, field.Required(path.Child("target", "kind"), "the kind of the object to be changed, such as Deployment"))
		}
		if p.Target.Name == "" {
			errs = append(errs, field.Required(path.Child("target", "name"), "the name of the object to be changed"))
		}
		path = path.Child("patch", "content")
		if p.Patch.Content == "" {
			errs = append(errs, field.Required(path, "the patch itself, as a string of YAML or JSON"))
			continue
		}
		var content any
		if err := decodeYAML(p.Patch.Content, &content); err != nil {
			errs = append(errs, field.Forbidden(path, fmt.Sprintf("must be YAML or JSON: %v", err)))
		} else if _, isObject := content.(map[string]any); p.Patch.Type != JSONPatch && !isObject {
			errs = append(errs, field.Forbidden(path, "must be a part of the object, a mapping"))
		} else if p.Patch.Type == JSONPatch && !areOperations(content) {
			errs = append(errs, field.Forbidden(path, "must be a list of operations, such as [{op: replace, path: /spec/replicas, value: 2}]"))
		}
	}
	return errs
}

// areOperations tells whether content looks like a JSON patch.
func areOperations(content any) bool {
	list, ok := content.([]any)
	for _, item := range list {
		operation, isObject := item.(map[string]any)
		_, hasOp := operation["op"].(string)
		_, hasPath := operation["path"].(string)
		ok = ok && isObject && hasOp && hasPath
	}
	return ok
}

// decodeYAML reads YAML that is a string within YAML.
func decodeYAML(text string, into any) (err error) {
	// The library has been known to panic on odd input.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("not valid YAML: %v", r)
		}
	}()
	err = yaml.Unmarshal([]byte(text), into)
	if err != nil {
		text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "unmarshal errors:\n  ")
		err = errors.New(strings.ReplaceAll(text, "\n  ", "; "))
	}
	return err
}
