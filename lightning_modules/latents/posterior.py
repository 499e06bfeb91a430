"""What every way of giving q(z) shares."""

from collections.abc import Iterator

from torch import Tensor, nn


class Posterior(nn.Module):
    """q(z) of particles: a rule that encodes what is seen of them, a table of rows, or nothing that is learned.

    Attributes:
        zdim: size of z.
        encodes: q follows from what the encoder sees, so that new particles have one too.
        reads_pose: q is a function of :meth:`features` of the image at its pose; if not, of the image alone.
    """

    encodes = False
    reads_pose = False

    def __init__(self, zdim: int) -> None:
        """Set the size of z."""
        super().__init__()
        self.zdim = zdim

    def features(self, image: Tensor, ctf: Tensor | None, rotations: Tensor | None) -> Tensor:
        """Compute what q is a function of where it ``reads_pose``; nothing learned enters.

        Args:
            image: (B, M) what the encoder sees: centred and phase-flipped.
            ctf: (B, M) of that image, or None.
            rotations: (B, 3, 3) pose of that image, or None where images have no pose.

        Returns:
            (B, F).
        """
        raise NotImplementedError

    def table_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that are trained row by row: none, unless there is a table."""
        return iter(())


class FreePosterior(Posterior):
    """Placeholder: q(z) is optimized per particle, and nothing is learned."""
