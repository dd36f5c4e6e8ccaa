// Package expression compiles and evaluates CEL expressions over the canonical event.
//
// `event` is the event's data as a typed object. All its members are there: what the PBX did not give
// is an empty text or object, and null for a number, time or truth value. To compare null by <, <=, >
// or >= gives false; has() tells whether the PBX gave something.
//
// It must not know what an expression is for, nor what becomes of the event.
package expression

import (
	"fmt"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/checker"
	"github.com/google/cel-go/common/env"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/stdlib"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"

	"github.com/pbxhook/pbxhook/receiver/event"
)

// costLimit is what one evaluation may cost, in CEL's units: enough to look at each of a thousand
// steps of a call's flow in ten ways, and about a tenth of a second where every unit is slow.
const costLimit = 100_000

// maxLength is how long an expression may be, in bytes.
const maxLength = 16_384

// Expression is a compiled condition.
type Expression struct {
	program cel.Program
}

// environment is what expressions may use: CEL's standard library, and `event`.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	registry, err := types.NewRegistry()
	if err != nil {
		return nil, fmt.Errorf("make CEL's types: %w", err)
	}
	known := newObjects(registry)
	options := []cel.EnvOption{
		cel.StdLib(cel.StdLibSubset(env.NewLibrarySubset().AddExcludedFunctions(excluded()...))),
		cel.CustomTypeProvider(known), cel.CustomTypeAdapter(known),
		cel.CrossTypeNumericComparisons(true), cel.DefaultUTCTimeZone(true), cel.EagerlyValidateDeclarations(true),
		cel.Variable("event", cel.ObjectType(typeName(eventType))),
	}
	e, err := cel.NewCustomEnv(append(options, comparisons()...)...)
	if err != nil {
		return nil, fmt.Errorf("make CEL's environment: %w", err)
	}
	return e, nil
})

// holds says for an order of two values whether a comparison holds.
var holds = map[string]func(order ref.Val) bool{
	operators.Less:          func(order ref.Val) bool { return order == types.IntNegOne },
	operators.LessEquals:    func(order ref.Val) bool { return order == types.IntNegOne || order == types.IntZero },
	operators.Greater:       func(order ref.Val) bool { return order == types.IntOne },
	operators.GreaterEquals: func(order ref.Val) bool { return order == types.IntOne || order == types.IntZero },
}

func excluded() []*env.Function {
	var functions []*env.Function
	for name := range holds {
		functions = append(functions, env.NewFunction(name))
	}
	return functions
}

// comparisons are CEL's own in all but this: null is neither less than anything nor greater.
func comparisons() []cel.EnvOption {
	var options []cel.EnvOption
	for _, function := range stdlib.Functions() {
		holds, ok := holds[function.Name()]
		if !ok {
			continue
		}
		var parts []cel.FunctionOpt
		for _, overload := range function.OverloadDecls() {
			parts = append(parts, cel.Overload(overload.ID(), overload.ArgTypes(), overload.ResultType()))
		}
		parts = append(parts, cel.SingletonBinaryBinding(func(left, right ref.Val) ref.Val {
			if left == types.NullValue || right == types.NullValue {
				return types.False
			}
			comparer, ok := left.(traits.Comparer)
			if !ok {
				return types.MaybeNoSuchOverloadErr(left)
			}
			order := comparer.Compare(right)
			if types.IsUnknownOrError(order) {
				return order
			}
			return types.Bool(holds(order))
		}))
		options = append(options, cel.Function(function.Name(), parts...))
	}
	return options
}

// Compile compiles a condition. The error says where it is wrong.
func Compile(text string) (*Expression, error) {
	program, kind, err := compile(text)
	if err != nil {
		return nil, err
	}
	if !kind.IsAssignableType(cel.BoolType) {
		return nil, fmt.Errorf("expected an expression that is true or false, got %s", kindWords(kind.String()))
	}
	return &Expression{program}, nil
}

// compile compiles an expression of any type, and says which it is.
func compile(text string) (cel.Program, *cel.Type, error) {
	if len(text) > maxLength {
		return nil, nil, fmt.Errorf("expected an expression of at most %d bytes, got %d", maxLength, len(text))
	}
	e, err := environment()
	if err != nil {
		return nil, nil, err
	}
	ast, issues := e.Compile(text)
	if issues.Err() != nil {
		return nil, nil, explainIssues(text, issues)
	}
	options := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}
	if cost, err := e.EstimateCost(ast, sizes{}); err != nil || cost.Max > costLimit {
		options = append(options, cel.CostLimit(costLimit)) // counting takes as long as evaluating
	}
	program, err := e.Program(ast, options...)
	if err != nil {
		return nil, nil, fmt.Errorf("make a program of the expression: %w", err)
	}
	return program, ast.OutputType(), nil
}

// sizes are how long an event's values may be.
type sizes struct{}

// EstimateSize implements checker.CostEstimator: nothing is longer than the request that it came with.
func (sizes) EstimateSize(checker.AstNode) *checker.SizeEstimate {
	return &checker.SizeEstimate{Max: event.MaxBody}
}

// EstimateCallCost implements checker.CostEstimator: CEL knows its own functions.
func (sizes) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil
}

// Holds is whether the condition holds of an event. An error says that it could not be told: a key
// that the payload does not have, a text that is no number, or too much work. It does not show the
// event's values.
func (x *Expression) Holds(e *event.Event) (bool, error) {
	result, _, err := x.program.Eval(&root{Event: e})
	switch {
	case err != nil:
		return false, fmt.Errorf("evaluate the expression: %w", err)
	case result == types.NullValue: // a truth value that the PBX did not give
		return false, nil
	}
	truth, ok := result.(types.Bool)
	if !ok {
		return false, fmt.Errorf("expected true or false from the expression, got a value of type %s", result.Type().TypeName())
	}
	return bool(truth), nil
}
