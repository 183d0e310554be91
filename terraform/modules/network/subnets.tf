# Internet-facing load balancers and the NAT gateways. EKS finds the subnets by
# their role tags.
resource "aws_subnet" "public" {
  count = 3

  vpc_id            = aws_vpc.network.id
  availability_zone = local.zones[count.index]
  cidr_block        = cidrsubnet(var.cidr, 6, 48 + count.index)

  tags = {
    Name                     = "${var.name}-public-${local.zones[count.index]}"
    "kubernetes.io/role/elb" = "1"
  }
}

# Nodes, pods, the network interfaces of the control plane and internal load
# balancers.
resource "aws_subnet" "private" {
  count = 3

  vpc_id            = aws_vpc.network.id
  availability_zone = local.zones[count.index]
  cidr_block        = cidrsubnet(var.cidr, 2, count.index)

  tags = {
    Name                              = "${var.name}-private-${local.zones[count.index]}"
    "kubernetes.io/role/internal-elb" = "1"
  }
}

resource "aws_internet_gateway" "gateway" {
  vpc_id = aws_vpc.network.id

  tags = { Name = var.name }
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.network.id

  tags = { Name = "${var.name}-public" }
}

resource "aws_route" "public_internet" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.gateway.id
}

resource "aws_route_table_association" "public" {
  count = 3

  subnet_id      = aws_subnet.public[count.index].id
  route_table_id = aws_route_table.public.id
}

resource "aws_route_table" "private" {
  count = 3

  vpc_id = aws_vpc.network.id

  tags = { Name = "${var.name}-private-${local.zones[count.index]}" }
}

resource "aws_route_table_association" "private" {
  count = 3

  subnet_id      = aws_subnet.private[count.index].id
  route_table_id = aws_route_table.private[count.index].id
}
