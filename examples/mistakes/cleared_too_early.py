"""`zero_grad` stands between `backward` and `step`

Then there is nothing left to step by, and the weights stay where they are. Many libraries do not say a word; here
`step` refuses to do nothing. The order is zero_grad, backward, step.
"""

import numpy as np

import minitorch_unet as mt

w = mt.Tensor(np.ones(1, np.float32), requires_grad=True)
optimizer = mt.optim.SGD([w], lr=0.3)
(w * w).sum().backward()
optimizer.zero_grad()
try:
    optimizer.step()
except ValueError as error:
    print("the engine says:", error)

optimizer.zero_grad()
(w * w).sum().backward()
optimizer.step()
print(f"right: from 1 to {w.data[0]:.2f}")
