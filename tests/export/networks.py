"""Networks to test with."""

import torch


def randomized(model, *, seed):
    """Make every weight, bias and statistic of a network matter, and return it in evaluation mode."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0)
            elif tensor.is_floating_point():
                tensor.normal_(1.0 if tensor.ndim == 1 and name.endswith("weight") else 0.0, 0.4)
    return model.eval().requires_grad_(False)
