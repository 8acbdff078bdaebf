package test

import (
	"slices"
	"testing"
)

// shrink returns a part of a list that still fails, by delta debugging: it takes out
// halves, then quarters, down to single elements, until none can be taken out or so
// many lists have been tried. try says whether a list fails, and what of it had an effect.
func shrink[T any](list []T, tries int, try func([]T) ([]T, bool)) []T {
	for size := (len(list) + 1) / 2; size > 0; {
		smaller := false
		// What stands at the end makes the failure more often than not, and needs less.
		for at := 0; at < len(list) && tries > 0 && len(list) > 1; {
			tries--
			end := min(at+size, len(list))
			if kept, fails := try(slices.Concat(list[:at], list[end:])); fails {
				at, list, smaller = min(at, len(kept)), kept, true
			} else {
				at = end
			}
		}
		switch {
		case tries == 0, size == 1 && !smaller:
			return list
		case size > 1:
			size = min(size, len(list)+1) / 2
		}
	}
	return list
}

func TestShrinkFindsTheSmallest(t *testing.T) {
	t.Parallel()
	for _, culprits := range [][]int{{0}, {99}, {41, 42}, {3, 50, 98}, {0, 25, 50, 75, 99}} {
		list := make([]int, 100)
		for i := range list {
			list[i] = i
		}
		tried := 0
		got := shrink(list, 1000, func(part []int) ([]int, bool) {
			tried++
			for _, c := range culprits {
				if !slices.Contains(part, c) {
					return part, false
				}
			}
			return part, true
		})
		if !slices.Equal(got, culprits) || tried > 150 {
			t.Errorf("of %v is left %v after %d tries", culprits, got, tried)
		}
	}
}

// What had no effect is left out at once, and the number of tries is kept to.
func TestShrinkIsBounded(t *testing.T) {
	t.Parallel()
	list := []int{2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	even := func(part []int) ([]int, bool) {
		part = slices.DeleteFunc(slices.Clone(part), func(n int) bool { return n%2 == 1 })
		return part, slices.Contains(part, 12)
	}
	if got := shrink(list, 1, even); !slices.Equal(got, []int{8, 10, 12}) {
		t.Errorf("after one try: %v", got)
	}
	if got := shrink(list, 100, even); !slices.Equal(got, []int{12}) {
		t.Errorf("at the end: %v", got)
	}
	if got := shrink(list, 0, even); !slices.Equal(got, list) {
		t.Errorf("without a try: %v", got)
	}
	if got := shrink([]int{1}, 9, func(part []int) ([]int, bool) { return part, true }); len(got) != 1 {
		t.Errorf("of one: %v", got)
	}
}
