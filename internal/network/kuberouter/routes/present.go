package routes

// Present are the paths that the kernel has of a table before.
func Present() ([]Path, error) {
	present, err := ours()
	if err != nil {
		return nil, err
	}
	var paths []Path
	for _, p := range present {
		if r := routeOf(p); r.destination.IsValid() && r.via.IsValid() {
			paths = append(paths, Path{Destination: r.destination, NextHop: r.via})
		}
	}
	return paths, nil
}
