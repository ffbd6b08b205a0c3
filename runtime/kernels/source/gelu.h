// GELU, x/2 (1 + erf(x / sqrt(2))), for the Vector that was included before.

constexpr float kErfReach = 4;  // beyond, erf is 1 to eight digits
// erf(z) = z p(z^2) / q(z^2) up to there: a minimax fit, off by at most 6e-8, and in float32 by 4e-7.
constexpr float kErfNumerator[] = {1.12837863f, 0.213880286f, 0.0524247959f, 0.00429027528f, 0.000155467263f,
                                   -1.99001511e-6f, 1.92179588e-8f};
constexpr float kErfDenominator[] = {1, 0.522874117f, 0.120772846f, 0.015545507f, 0.00109735492f};

template <int count>
Vector polynomial(const float (&coefficients)[count], Vector x) {
    Vector sum = Vector::broadcast(coefficients[count - 1]);
#pragma GCC unroll 8
    for (int i = count - 2; i >= 0; i--) sum = multiply_add(sum, x, Vector::broadcast(coefficients[i]));
    return sum;
}

inline Vector gelu(Vector x) {
    const Vector reach = Vector::broadcast(kErfReach), one = Vector::broadcast(1), half = Vector::broadcast(0.5f);
    const Vector scaled = x * Vector::broadcast(0.707106781f);
    const Vector z = smaller(reach, larger(Vector::broadcast(-kErfReach), scaled)), square = z * z;
    const Vector erf = z * polynomial(kErfNumerator, square) / polynomial(kErfDenominator, square);
    // Far below zero nothing may be left of erf's error times x.
    return larger(Vector::broadcast(-kErfReach * 1.41421356f), x) * half * (one + erf);
}
