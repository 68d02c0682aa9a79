package node

import (
	"context"
	"fmt"
	"io"

	containerdclient "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/pkg/namespaces"

	embeddedbins "k0s.io/k0s/embedded-bins"
	"k0s.io/k0s/internal/assets"
	"k0s.io/k0s/internal/component"
)

// criNamespace is where the CRI plugin keeps its images.
const criNamespace = "k8s.io"

// pinned keeps the kubelet's garbage collection off an image and shows it to the CRI at once.
var pinned = map[string]string{"io.cri-containerd.image": "managed", "io.cri-containerd.pinned": "pinned"}

// images imports the images of the system pods. The kubelet waits for it: a pod that starts before
// its image is there would try a registry, fail, and sit out a back-off.
func images(o Options) component.Component {
	log := o.Log.With("component", "images")
	return component.Component{Name: "images", Start: func(ctx context.Context) error {
		embedded, err := assets.Images(embeddedbins.Assets)
		if err != nil {
			return err
		}
		client, err := containerdclient.New(o.Layout.ContainerdSocket(), containerdclient.WithDefaultNamespace(criNamespace))
		if err != nil {
			return fmt.Errorf("connecting to containerd: %w", err)
		}
		defer client.Close()
		for _, image := range embedded {
			imported, err := importImage(namespaces.WithNamespace(ctx, criNamespace), client, image)
			if err != nil {
				return fmt.Errorf("importing image %s: %w", image.Ref, err)
			}
			if imported {
				log.Info("Imported an image", "image", image.Ref)
			}
		}
		return nil
	}}
}

// importImage imports and unpacks image, unless just that is there already.
func importImage(ctx context.Context, client *containerdclient.Client, image assets.Image) (imported bool, err error) {
	// A lease keeps containerd's garbage collection off what is not referred to yet.
	ctx, release, err := client.WithLease(ctx)
	if err != nil {
		return false, err
	}
	defer func() { _ = release(ctx) }()
	if present, err := client.GetImage(ctx, image.Ref); err == nil && present.Target().Digest.String() == image.Digest {
		if unpacked, err := present.IsUnpacked(ctx, ""); err == nil && unpacked && present.Labels()["io.cri-containerd.pinned"] == "pinned" {
			return false, nil
		}
	}
	archive, err := image.Open()
	if err != nil {
		return false, err
	}
	defer archive.Close()
	imgs, err := client.Import(ctx, archive, containerdclient.WithImageLabels(pinned))
	if err != nil {
		return false, err
	}
	// The archive is checked when it is read to its end, where the importer need not have gone.
	if _, err := io.Copy(io.Discard, archive); err != nil {
		return false, err
	}
	for _, img := range imgs {
		// A power cut must not leave what counts as unpacked with empty files in it.
		if err := containerdclient.NewImage(client, img).Unpack(ctx, "", containerdclient.WithUnpackApplyOpts(diff.WithSyncFs(true))); err != nil {
			return false, fmt.Errorf("unpacking: %w", err)
		}
	}
	return true, nil
}
